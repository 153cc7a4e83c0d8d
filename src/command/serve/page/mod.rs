//! The page at `/`: its files, and what it asks for beside the interface that clients use.
//!
//! The files say nothing about this server, so they need no token: they are what asks for it. A policy lets them load
//! nothing from elsewhere, run no script that is written into the page, and be framed by nobody.

mod curves;
mod gates;
mod query;
mod runs;

pub(super) use runs::Runs;

use super::App;
use super::failure::Failure;
use super::http::{Reply, text};
use super::routes;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Request, Response};
use query::Query;
use std::sync::Arc;

/// Everything of the page, beside the routes that the description has.
pub(super) const ROUTES: [(&str, &str); 12] = [
    ("GET", "/"),
    ("GET", "/page/app.js"),
    ("GET", "/page/dom.js"),
    ("GET", "/page/gates.js"),
    ("GET", "/page/icon.svg"),
    ("GET", "/page/runs.js"),
    ("GET", "/page/style.css"),
    ("GET", "/page/text.js"),
    ("GET", "/page/runs"),
    ("GET", "/page/curves.svg"),
    ("GET", "/page/compare"),
    ("POST", "/page/gates"),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, kind and content.
const FILES: [(&str, &str, &str); 8] = [
    ("/", "text/html; charset=utf-8", include_str!("index.html")),
    ("/page/app.js", SCRIPT, include_str!("app.js")),
    ("/page/dom.js", SCRIPT, include_str!("dom.js")),
    ("/page/gates.js", SCRIPT, include_str!("gates.js")),
    ("/page/icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("/page/runs.js", SCRIPT, include_str!("runs.js")),
    ("/page/style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("/page/text.js", SCRIPT, include_str!("text.js")),
];

/// What a browser may do with the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Whether this is a file of the page, which needs no token.
pub(super) fn is_file(path: &str) -> bool {
    FILES.iter().any(|(known, ..)| *known == path)
}

/// Whether this is one of [`ROUTES`].
pub(super) fn is_here(path: &str) -> bool {
    ROUTES.iter().any(|(_, known)| *known == path)
}

/// Answers one of [`ROUTES`].
pub(super) async fn answer(
    app: &Arc<App>,
    path: &'static str,
    request: Request<Incoming>,
) -> Response<Reply> {
    let found = match FILES.iter().find(|(known, ..)| *known == path) {
        Some((_, kind, content)) => Ok(text(kind, *content)),
        None => asked(app, path, request).await,
    };
    let mut response = found.unwrap_or_else(|failure| failure.response());
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn asked(
    app: &Arc<App>,
    path: &'static str,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Failure> {
    if path == "/page/gates" {
        let body = routes::body(app, request).await?;
        return gates::gates(app.clone(), body).await;
    }
    let query = Query::parse(request.uri().query());
    let runs = app.runs.clone();
    let work = async {
        let Ok(_permit) = app.runs.readers.acquire().await else {
            return Err(Failure::internal("the server stops"));
        };
        let read = tokio::task::spawn_blocking(move || match path {
            "/page/runs" => query.finish().and_then(|()| runs.json()),
            "/page/compare" => curves::compare(&runs, query),
            _ => curves::curves(&runs, query),
        });
        read.await.unwrap_or_else(|_| Err(Failure::internal("the runs cannot be read")))
    };
    let read = tokio::time::timeout(app.limits.request_timeout, work).await;
    read.unwrap_or_else(|_| Err(Failure::timeout(app.limits.request_timeout.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::{FILES, ROUTES, is_here};

    fn file(path: &str) -> &'static str {
        FILES.iter().find(|(known, ..)| *known == path).unwrap().2
    }

    /// The numbers of three that stand together, in their order.
    fn colors(text: &str, open: char, close: char) -> Vec<Vec<u8>> {
        let parts = text.split(open).skip(1).filter_map(|rest| rest.split(close).next());
        let numbers = |part: &str| -> Option<Vec<u8>> {
            part.split(',').map(|number| number.trim().parse::<u8>().ok()).collect()
        };
        parts.filter_map(numbers).filter(|numbers| numbers.len() == 3).collect()
    }

    #[test]
    fn every_file_has_its_route_and_every_script_is_there() {
        for (path, ..) in FILES {
            assert!(ROUTES.contains(&("GET", path)), "{path}");
        }
        for (path, _, content) in FILES.iter().filter(|file| file.0.ends_with(".js")) {
            for import in content.split(" from \"./").skip(1) {
                let name = import.split('"').next().unwrap();
                assert!(is_here(&format!("/page/{name}")), "{path}: {name}");
            }
        }
    }

    #[test]
    fn nothing_leads_elsewhere_and_nothing_is_written_as_markup() {
        for (path, _, content) in FILES {
            let content = content.replace("http://www.w3.org/2000/svg", "");
            for wrong in [
                "http:",
                "https:",
                "src=\"//",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=",
                " onclick",
                "@import",
                "url(",
            ] {
                assert!(!content.contains(wrong), "{path}: {wrong}");
            }
        }
        let html = file("/");
        for attribute in ["src=\"", "href=\""] {
            for reference in html.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                assert!(reference.starts_with('#') || is_here(reference), "{reference}");
            }
        }
    }

    #[test]
    fn the_colours_are_those_of_the_pictures() {
        let pictures = include_str!("../../../study/plot/figure/color_scale.rs");
        let of_pictures = colors(pictures, '(', ')');
        let of_page = colors(file("/page/dom.js"), '[', ']');
        assert_eq!(of_page[..17], of_pictures[..17], "viridis");
        assert_eq!(
            of_page[17..21],
            of_pictures[20..24],
            "from the middle of the other scale to its orange end"
        );
        assert_eq!(of_page.len(), 21);
    }

    #[test]
    fn every_label_has_its_control() {
        let html = file("/");
        let values = |attribute: &str| -> Vec<&str> {
            html.split(&format!(" {attribute}=\""))
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap())
                .collect()
        };
        let ids = values("id");
        for attribute in ["for", "aria-labelledby", "aria-describedby"] {
            for id in values(attribute).iter().flat_map(|ids| ids.split(' ')) {
                assert_eq!(ids.iter().filter(|known| **known == id).count(), 1, "{attribute} {id}");
            }
        }
        for control in ["<input", "<select", "<textarea"] {
            for tag in html.split(control).skip(1).map(|rest| rest.split('>').next().unwrap()) {
                let id = tag.split(" id=\"").nth(1).and_then(|rest| rest.split('"').next());
                let id = id.unwrap_or_else(|| panic!("{control}{tag}"));
                assert!(values("for").contains(&id), "{id} has no label");
            }
        }
    }
}
