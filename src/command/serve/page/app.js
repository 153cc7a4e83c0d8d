// The page of rhn serve: models, token, and the start of its parts.

import { alertUser, byId, describe, element, rememberToken, send, TokenWanted } from "./dom.js";
import { startGates } from "./gates.js";
import { startRuns, refreshRuns } from "./runs.js";
import { startTexts } from "./text.js";

async function loadModels() {
  const { data } = await (await send("/v1/models")).json();
  const chosen = byId("model").value;
  byId("model").replaceChildren(...data.map(({ id }) => element("option", { value: id }, id)));
  if (data.some(({ id }) => id === chosen)) byId("model").value = chosen;
}

async function load() {
  try {
    await Promise.all([loadModels(), refreshRuns()]);
  } catch (error) {
    if (!(error instanceof TokenWanted)) alertUser(describe(error));
  }
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  rememberToken(byId("token").value.trim());
  byId("token").value = "";
  byId("token-form").hidden = true;
  alertUser("");
  load();
});

startRuns();
startTexts();
startGates();
load();
