//! Every route, and serving them on a listener.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::MethodRouter;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};
use tower_service::Service;

use super::answers::{self, AnswerBody};
use super::app::{App, Peer, error};
use super::control_access::is_listed_origin;
use super::http_socket::HttpSocket;
use super::places::HttpPlace;
use super::request_body::RequestBody;
use super::route_table::{Access, ROUTES, Route};
use crate::health::log_limit;

/// The routes that this server has: those of [`ROUTES`] that its settings switch on.
pub fn routes(app: &Arc<App>) -> Router {
    let served = ROUTES.iter().filter(|route| route.served.holds(app));
    served
        .fold(Router::new(), |router, route| router.route(route.path, handlers(route, app)))
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
        Access::ListedOrigins => {
            let control = app.options.control.clone();
            AllowOrigin::predicate(move |origin, _| {
                origin.to_str().is_ok_and(|origin| is_listed_origin(&control, origin))
            })
        }
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
pub async fn serve(listener: TcpListener, routes: Router, app: Arc<App>) {
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
                if log_limit::client_line(tracing::Level::WARN) {
                    tracing::warn!(%error, "cannot accept a connection");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // A connection holds its place until it is upgraded or ends. Without a place the next connections wait in the
        // kernel's queue.
        let taken = app.bounds.places.take().await;
        let door = Door { app: Arc::clone(&app), routes: routes.clone(), peer, place: Arc::clone(taken.place()) };
        let service = service_fn(move |request| door.clone().answer(request));
        let connection = http.serve_connection(TokioIo::new(HttpSocket::new(socket)), service).with_upgrades();
        let app = Arc::clone(&app);
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "HTTP connection ended");
                    }
                }
                () = taken.place().ousted() => tracing::debug!(%peer, "HTTP connection dropped for another"),
                () = taken.place().stalled(app.bounds.answer_timeout) => app.bounds.places.count_stalled(),
            }
        });
    }
}

/// One HTTP connection, as its requests see it.
#[derive(Clone)]
struct Door {
    app: Arc<App>,
    routes: Router,
    peer: SocketAddr,
    place: Arc<HttpPlace>,
}

impl Door {
    async fn answer(mut self, request: http::Request<Incoming>) -> Result<http::Response<AnswerBody>, Infallible> {
        self.place.works();
        let (mut parts, body) = request.into_parts();
        let expects_go_ahead = parts.headers.contains_key(EXPECT);
        let (body, unread) = RequestBody::new(body, Arc::clone(&self.place));
        let response = match set_host(&mut parts) {
            Ok(()) => {
                let mut request = http::Request::from_parts(parts, body);
                request.extensions_mut().insert(Peer(self.peer));
                let Ok(response) = self.routes.call(request).await;
                response
            }
            Err(refused) => {
                drop(body);
                error(StatusCode::BAD_REQUEST, refused)
            }
        };
        // Who has not been told to go ahead sends no body after a refusal.
        if !expects_go_ahead {
            unread.discard(self.app.options.max_body_bytes).await;
        }
        let response = answers::counted(&self.app, response).await;
        Ok(response.map(|body| AnswerBody::new(body, self.place)))
    }
}

/// Checks that a request names one host, and has the header say that of an absolute target (RFC 9112 §3.2).
fn set_host(parts: &mut Parts) -> Result<(), &'static str> {
    if parts.version >= Version::HTTP_11 && parts.headers.get_all(HOST).iter().count() != 1 {
        return Err("expected one Host header");
    }
    let of_target = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = of_target {
        parts.headers.insert(HOST, host);
    }
    Ok(())
}
