//! Every route, and serving them on a listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::MethodRouter;
use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};
use tower_service::Service;

use super::app::{App, Peer, error};
use super::control_access::is_listed_origin;
use super::route_table::{Access, ROUTES, Route};

/// The routes that this server has: those of [`ROUTES`] that its settings switch on.
pub fn routes(app: &Arc<App>) -> Router {
    let served = ROUTES.iter().filter(|route| route.served.holds(app));
    served
        .fold(Router::new(), |router, route| router.route(route.path, handlers(route, app)))
        .layer(DefaultBodyLimit::max(app.options.max_body_bytes))
        .fallback(async || error(StatusCode::NOT_FOUND, "no such path"))
        .with_state(Arc::clone(app))
}

fn handlers(route: &Route, app: &Arc<App>) -> MethodRouter<Arc<App>> {
    let expected = format!("expected {}", route.expected());
    let other_method = async move || error(StatusCode::METHOD_NOT_ALLOWED, &expected);
    // The fallback before the layer, or a preflight would end there.
    let handlers = (route.handlers)().fallback(other_method);
    let origins = match route.access {
        Access::OwnOrigin => return handlers,
        Access::EveryOrigin => AllowOrigin::from(Any),
        Access::Steered => {
            let control = app.options.control.clone();
            AllowOrigin::predicate(move |origin, parts| {
                is_read(parts) || origin.to_str().is_ok_and(|origin| is_listed_origin(&control, origin))
            })
        }
    };
    // HEAD needs no permission (Fetch, "CORS-safelisted method").
    let preflight = (route.methods != [Method::GET]).then_some(Method::OPTIONS);
    let methods: Vec<Method> = route.methods.iter().cloned().chain(preflight).collect();
    // Mirrored: the `*` of Fetch does not cover Authorization, which carries the key.
    let any_header = AllowHeaders::mirror_request();
    handlers.layer(CorsLayer::new().allow_origin(origins).allow_methods(methods).allow_headers(any_header))
}

/// Whether this is a read, or a browser's question whether it may read.
fn is_read(parts: &Parts) -> bool {
    let asked = parts.headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| parts.method == Method::OPTIONS);
    let method = asked.map_or(parts.method.as_str().as_bytes(), |method| method.as_bytes());
    [Method::GET, Method::HEAD].iter().any(|read| read.as_str().as_bytes() == method)
}

/// Accepts on one listener until the process ends.
pub async fn serve(listener: TcpListener, routes: Router, app: Arc<App>, permits: Arc<Semaphore>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(app.options.http_timeout_seconds))
        .max_buf_size(16 << 10)
        .half_close(false);
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // No file descriptor is free: some connection must end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // A connection holds its permit until it is upgraded or ends. Without a free permit the next
        // connections wait in the kernel's queue.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let connection = connection(&http, socket, peer, routes.clone());
        tokio::spawn(async move {
            connection.await;
            drop(permit);
        });
    }
}

/// Serves one HTTP connection; ends when it is upgraded.
fn connection(
    http: &http1::Builder,
    socket: TcpStream,
    peer: SocketAddr,
    routes: Router,
) -> impl Future<Output = ()> + use<> {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        routes.clone().call(request)
    });
    let connection = http.serve_connection(TokioIo::new(socket), service).with_upgrades();
    async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP connection ended");
        }
    }
}
