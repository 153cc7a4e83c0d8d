//! The page of `rhn serve`: its files, what it asks the server for, and what it must never get.

mod gates;
mod runs;
mod server;

use crate::support::run::Place;
use serde_json::json;
use server::Server;

#[test]
fn the_page_and_its_files_are_served_with_a_policy_that_binds_the_browser() {
    let place = Place::new();
    place.train("--out run --max-steps 1");
    let server = Server::start(&place, "run");
    let page = server.get("/");
    assert!(
        page.status == 200 && page.head.contains("content-type: text/html; charset=utf-8"),
        "{}",
        page.head
    );
    page.is_bound();
    let mut references = 0;
    for attribute in ["src=\"/", "href=\"/"] {
        for rest in page.body.split(attribute).skip(1) {
            let answer = server.get(&format!("/{}", rest.split('"').next().unwrap()));
            assert_eq!(answer.status, 200, "{rest}");
            answer.is_bound();
            references += 1;
        }
    }
    assert_eq!(references, 7); // the icon, the style, the script and what it imports
    assert!(
        !page.body.contains("<script>") && !page.body.contains("<style"),
        "no script or style in the page"
    );
    assert!(server.get("/page/app.js").head.contains("content-type: text/javascript"));
    assert_eq!(server.send("HEAD", "/", "", "").body, "");
    server.send("POST", "/", "", "").is_error(405, "GET");
    server.get("/page/").is_error(404, "nothing here");
    server.get("/page/../Cargo.toml").is_error(404, "nothing here");
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("rhn_answers_total{path=\"/page/app.js\",status=\"200\"} 2\n"), "{metrics}");
}

#[test]
fn the_files_need_no_token_and_everything_else_does() {
    let place = Place::new();
    place.train("--out run");
    place.write("token", "a-secret\n");
    let server = Server::start(&place, "run --token-file token");
    for file in ["/", "/page/app.js", "/page/style.css", "/page/icon.svg"] {
        assert_eq!(server.get(file).status, 200, "{file}");
    }
    let asked = ["/page/runs", "/page/curves.svg?run=run", "/page/compare?run=run", "/v1/models"];
    for target in asked {
        server.get(target).is_error(401, "TOKEN");
        assert_eq!(server.send("GET", target, "Authorization: Bearer wrong\r\n", "").status, 401);
        assert_eq!(
            server.send("GET", target, "Authorization: Bearer a-secret\r\n", "").status,
            200,
            "{target}"
        );
    }
    server.gates(&json!({"text": "to be"})).is_error(401, "TOKEN");
}
