//! The admin port: faults, counters, log and objects as JSON, for tests that run the cloud as a process.
//!
//! | request | does |
//! | --- | --- |
//! | `GET /faults` | the faults that are on |
//! | `POST /faults` | switches one on, answers `{"id": ..}` |
//! | `DELETE /faults`, `DELETE /faults/{id}` | heals all, or one |
//! | `GET /counters` | requests since the start |
//! | `GET /log?after=N` | the last requests with a number above N |
//! | `GET /objects?bucket=B&prefix=P` | what is held |
//! | `POST /objects/remove`, `POST /objects/rot` | loses an object, or turns over one bit of it |

use super::Shared;
use super::faults::{Active, Fault};
use super::journal::{Counters, Entry};
use super::objects::{ObjectsError, hex};
use super::remote::{Added, Held, One};
use super::server::{Server, stopped};
use anyhow::Result;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use std::sync::Arc;
use tokio::net::TcpListener;

type Cloud = State<Arc<Shared>>;

pub(super) fn serve(listener: TcpListener, shared: Arc<Shared>) -> Result<Server> {
    let routes = Router::new()
        .route("/faults", get(faults).post(add).delete(heal))
        .route("/faults/{id}", delete(remove))
        .route("/counters", get(counters))
        .route("/log", get(log))
        .route("/objects", get(objects))
        .route("/objects/remove", post(lose))
        .route("/objects/rot", post(rot))
        .with_state(shared);
    Server::run(listener, |listener, mut stop| async move {
        let until = async move { stopped(&mut stop).await };
        if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(until).await {
            tracing::warn!(%error, "the admin port has failed");
        }
    })
}

async fn faults(State(cloud): Cloud) -> Json<Vec<Active>> {
    Json(cloud.faults.active())
}

async fn add(State(cloud): Cloud, Json(fault): Json<Fault>) -> Json<Added> {
    Json(Added { id: cloud.faults.add(fault) })
}

async fn heal(State(cloud): Cloud) {
    cloud.faults.heal();
}

async fn remove(State(cloud): Cloud, Path(id): Path<u64>) -> StatusCode {
    if cloud.faults.remove(id) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn counters(State(cloud): Cloud) -> Json<Counters> {
    Json(cloud.journal.counters())
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn log(State(cloud): Cloud, Query(After { after }): Query<After>) -> Json<Vec<Entry>> {
    Json(cloud.journal.log(after))
}

#[derive(Deserialize)]
struct Below {
    bucket: String,
    #[serde(default)]
    prefix: String,
}

async fn objects(State(cloud): Cloud, Query(Below { bucket, prefix }): Query<Below>) -> Json<Vec<Held>> {
    let held = cloud.objects.all(&bucket, &prefix).into_iter();
    Json(held.map(|facts| Held { key: facts.key, bytes: facts.bytes, md5: hex(&facts.md5) }).collect())
}

async fn lose(State(cloud): Cloud, Json(One { bucket, key, .. }): Json<One>) -> (StatusCode, String) {
    match cloud.objects.remove(&bucket, &key) {
        Ok(true) => (StatusCode::OK, String::new()),
        Ok(false) => refused(&ObjectsError::NoObject(key)),
        Err(error) => refused(&error),
    }
}

async fn rot(State(cloud): Cloud, Json(One { bucket, key, bit }): Json<One>) -> (StatusCode, String) {
    match cloud.objects.rot(&bucket, &key, bit) {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(error) => refused(&error),
    }
}

fn refused(error: &ObjectsError) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, error.to_string())
}
