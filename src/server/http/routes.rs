//! Every route, and serving them on a listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use http::{Method, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use tower_service::Service;

use super::app::{App, Peer, error};
use super::{metrics, negotiate, publish, stream_upgrade, ticks, upgrade, websocket_status};

/// Every route of the server, with its handler.
pub fn routes(app: &Arc<App>) -> Router {
    // Mirrored: the `*` of Fetch does not cover Authorization, which carries the key.
    let any_header = AllowHeaders::mirror_request();
    let cors = CorsLayer::new().allow_origin(Any).allow_headers(any_header);
    let open = cors.clone().allow_methods([Method::GET]);
    let other_method = async || error(StatusCode::METHOD_NOT_ALLOWED, "expected GET");
    let read_only = Router::new()
        .route("/healthz", get(websocket_status::healthz))
        .route("/tickers", get(websocket_status::tickers))
        .route("/ticks", get(ticks::ticks))
        .route("/websocket/status", get(websocket_status::websocket_status));
    let mut others = Router::new().route("/metrics", get(metrics::metrics));
    if app.options.ws_enabled {
        let v1 = get(negotiate::get_v1).post(negotiate::post_v1).patch(negotiate::patch);
        let v2 = get(negotiate::get_v2).post(negotiate::post_v2).patch(negotiate::patch);
        let other_method = async || error(StatusCode::METHOD_NOT_ALLOWED, "expected GET, POST or PATCH");
        let methods = [Method::GET, Method::POST, Method::PATCH, Method::OPTIONS];
        let negotiate = Router::new().route("/negotiate", v1).route("/v2/negotiate", v2);
        let negotiate = negotiate.method_not_allowed_fallback(other_method).layer(cors.allow_methods(methods));
        others = others
            .merge(negotiate)
            .route("/ws/{hub}", get(upgrade::ws))
            .route("/client/hubs/{hub}", get(upgrade::client))
            .route("/client", get(upgrade::client_query));
    }
    if app.stream_options.enabled {
        others = others.route("/ws", get(stream_upgrade::ws));
    }
    let other_than_post = async || error(StatusCode::METHOD_NOT_ALLOWED, "expected POST");
    let publishing = Router::new()
        .route("/api/publish", post(publish::publish))
        .layer(DefaultBodyLimit::max(app.options.max_body_bytes))
        .method_not_allowed_fallback(other_than_post);
    // The fallback before the layer, or a preflight would end there.
    read_only
        .method_not_allowed_fallback(other_method)
        .layer(open)
        .merge(others.method_not_allowed_fallback(other_method))
        .merge(publishing)
        .fallback(async || error(StatusCode::NOT_FOUND, "no such path"))
        .with_state(Arc::clone(app))
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
