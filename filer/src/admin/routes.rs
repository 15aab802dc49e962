//! The paths of the admin door.

use super::{ROWS_DEFAULT, ROWS_MAX, Refusal, Steering};
use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, Query, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mesh::words::span;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// Longest time for an answer that is read from memory or the replica.
const READ_MS_MAX: u64 = 10_000;
/// Longest time for something to be done, with a majority's agreement.
const DO_MS_MAX: u64 = 60_000;

type Site = State<Arc<dyn Steering>>;

/// What was done, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    pub done: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    after: Option<String>,
    limit: Option<usize>,
}

/// A [`Range`] of which the door says what is wrong in its own form.
struct Rows(Range);

impl<S: Send + Sync> FromRequestParts<S> for Rows {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let range = Query::<Range>::try_from_uri(&parts.uri).map_err(|e| Refusal::Request(e.body_text()))?.0;
        match range.limit {
            Some(0) => Err(Refusal::Request(format!("limit is 0; give 1 to {ROWS_MAX}"))),
            Some(limit) if limit > ROWS_MAX => {
                Err(Refusal::Request(format!("limit is {limit}; give 1 to {ROWS_MAX}, and go on with after")))
            }
            _ => Ok(Self(range)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    #[serde(default)]
    anyway: bool,
}

/// A [`Move`], in the same way.
struct Moves(Move);

impl<S: Send + Sync> FromRequestParts<S> for Moves {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Self(Query::<Move>::try_from_uri(&parts.uri).map_err(|e| Refusal::Request(e.body_text()))?.0))
    }
}

impl Rows {
    fn limit(&self) -> usize {
        self.0.limit.unwrap_or(ROWS_DEFAULT)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = match &self {
            Refusal::Rules(_) => StatusCode::CONFLICT,
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::Request(_) => StatusCode::BAD_REQUEST,
            Refusal::Later(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (code, Json(self)).into_response()
    }
}

/// `what`, within its time.
async fn within<T>(ms_max: u64, what: impl Future<Output = Result<T, Refusal>>) -> Result<Json<T>, Refusal> {
    match tokio::time::timeout(Duration::from_millis(ms_max), what).await {
        Ok(answer) => answer.map(Json),
        Err(_) => Err(Refusal::Later(format!("no answer within {}", span(ms_max)))),
    }
}

async fn done(what: impl Future<Output = Result<String, Refusal>>) -> Result<Json<Done>, Refusal> {
    within(DO_MS_MAX, async { what.await.map(|done| Done { done }) }).await
}

/// The status, within its time.
pub(super) async fn status_of(site: &dyn Steering) -> Result<super::Status, Refusal> {
    within(READ_MS_MAX, async { Ok(site.status().await) }).await.map(|Json(status)| status)
}

/// All paths.
pub(super) fn routes(site: Arc<dyn Steering>) -> Router {
    Router::new()
        .route("/v1/status", get(async |State(site): Site| status_of(&*site).await.map(Json)))
        .route("/v1/peers", get(async |State(site): Site| status_of(&*site).await.map(|status| Json(status.peers))))
        .route("/v1/clouds", get(async |State(site): Site| status_of(&*site).await.map(|status| Json(status.clouds))))
        .route(
            "/v1/clouds/{cloud}/failover",
            post(async |State(site): Site, Path(cloud): Path<String>, Moves(Move { anyway }): Moves| {
                done(site.failover(&cloud, anyway)).await
            }),
        )
        .route(
            "/v1/clouds/failover",
            post(async || Refusal::Request("name the cloud that is to be active: /v1/clouds/CLOUD/failover".into())),
        )
        .route(
            "/v1/clouds/failback",
            post(async |State(site): Site, Moves(Move { anyway }): Moves| done(site.failback(anyway)).await),
        )
        .route(
            "/v1/peers/{name}/remove",
            post(async |State(site): Site, Path(name): Path<String>| done(site.remove_peer(&name)).await),
        )
        .route(
            "/v1/peers/{name}/keep",
            post(async |State(site): Site, Path(name): Path<String>| done(site.keep_peer(&name)).await),
        )
        .route(
            "/v1/certificates/{filer}/{name}/{serial}/revoke",
            post(async |State(site): Site, Path((filer, name, serial)): Path<(String, String, String)>| {
                let wrong = |_| Refusal::Request(format!("{filer} is no filer's id"));
                let filer = filer.parse().map_err(wrong)?;
                done(site.revoke(filer, &name, &serial)).await
            }),
        )
        .route(
            "/v1/certificate/{serial}/use",
            post(async |State(site): Site, Path(serial): Path<String>| done(site.use_certificate(&serial)).await),
        )
        .route(
            "/v1/peers/{name}/certificate",
            get(async |State(site): Site, Path(filer): Path<String>| {
                let wrong = |_| Refusal::Request(format!("{filer} is no filer's id"));
                let filer = filer.parse().map_err(wrong)?;
                within(READ_MS_MAX, site.certificate_of(filer)).await
            }),
        )
        .route(
            "/v1/segments",
            get(async |State(site): Site, rows: Rows| {
                let limit = rows.limit();
                within(READ_MS_MAX, site.segments(rows.0.after, limit)).await
            }),
        )
        .route(
            "/v1/files",
            get(async |State(site): Site, rows: Rows| {
                let limit = rows.limit();
                within(READ_MS_MAX, site.files(rows.0.after, limit)).await
            }),
        )
        .route("/v1/decisions", get(async |State(site): Site| within(READ_MS_MAX, site.decisions()).await))
        .fallback(async || Refusal::NotFound("there is no such path here".into()))
        .method_not_allowed_fallback(async || Refusal::Request("this path does not know that method".into()))
        .with_state(site)
}
