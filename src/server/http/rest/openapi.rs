//! `GET /openapi.yaml`: every route of the server, described. Tests compare it with the routes.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

/// The document in YAML; a test compares it with the routes.
pub const OPENAPI: &str = include_str!("openapi.yaml");

/// Answers at any stage of the server.
pub async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/yaml")], OPENAPI).into_response()
}
