//! The page that plots results. Its files are built in, so that it needs no other server.

use axum::Router;
use axum::http::header;
use axum::routing::get;

/// The content security policy: scripts, styles and requests of this origin only, none of them inline,
/// and no frame around the page.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// The files of the page: path, media type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("../assets/index.html")),
    ("/assets/page.css", STYLE, include_str!("../assets/page.css")),
    ("/assets/page.js", SCRIPT, include_str!("../assets/page.js")),
    ("/assets/series.js", SCRIPT, include_str!("../assets/series.js")),
    ("/assets/chart.js", SCRIPT, include_str!("../assets/chart.js")),
    ("/assets/text.js", SCRIPT, include_str!("../assets/text.js")),
    ("/assets/favicon.svg", IMAGE, include_str!("../assets/favicon.svg")),
    ("/assets/uplot.js", SCRIPT, include_str!("../assets/uplot/uPlot.iife.min.js")),
    ("/assets/uplot.css", STYLE, include_str!("../assets/uplot/uPlot.min.css")),
    ("/assets/uplot.txt", TEXT, include_str!("../assets/uplot/LICENSE")),
];

pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, &(path, kind, content)| {
        let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
        router.route(path, get(async move || (headers, content)))
    })
}
