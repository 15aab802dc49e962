//! A test cloud in another process, steered through its admin port.

use super::faults::{Active, Fault};
use super::journal::{Counters, Entry};
use crate::http::{self, Answer};
use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A fault's id, as the admin port tells it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Added {
    pub(super) id: u64,
}

/// One object, as it is named to the admin port.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct One {
    pub(super) bucket: String,
    pub(super) key: String,
    #[serde(default)]
    pub(super) bit: u64,
}

/// An object that the cloud holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub key: String,
    pub bytes: u64,
    /// In hex.
    pub md5: String,
}

/// The admin port of a test cloud; every call is one request.
#[derive(Clone, Copy, Debug)]
pub struct RemoteCloud {
    admin: SocketAddr,
}

impl RemoteCloud {
    pub fn new(admin: SocketAddr) -> Self {
        Self { admin }
    }

    /// Switches a fault on; its id.
    pub async fn add(&self, fault: &Fault) -> Result<u64> {
        let answer = self.call("POST", "/faults", Some(serde_json::to_vec(fault)?)).await?;
        Ok(json::<Added>(&answer)?.id)
    }

    /// Switches one off.
    pub async fn remove(&self, id: u64) -> Result<()> {
        self.call("DELETE", &format!("/faults/{id}"), None).await.map(drop)
    }

    /// Switches all off.
    pub async fn heal(&self) -> Result<()> {
        self.call("DELETE", "/faults", None).await.map(drop)
    }

    /// The faults that are on.
    pub async fn faults(&self) -> Result<Vec<Active>> {
        json(&self.call("GET", "/faults", None).await?)
    }

    /// Requests since the start.
    pub async fn counters(&self) -> Result<Counters> {
        json(&self.call("GET", "/counters", None).await?)
    }

    /// The last requests with a number above `after`.
    pub async fn log(&self, after: u64) -> Result<Vec<Entry>> {
        json(&self.call("GET", &format!("/log?after={after}"), None).await?)
    }

    /// What it holds below `prefix`, which has no character that a URL would need coded.
    pub async fn objects(&self, bucket: &str, prefix: &str) -> Result<Vec<Held>> {
        json(&self.call("GET", &format!("/objects?bucket={bucket}&prefix={prefix}"), None).await?)
    }

    /// Loses an object.
    pub async fn lose(&self, bucket: &str, key: &str) -> Result<()> {
        let one = One { bucket: bucket.into(), key: key.into(), bit: 0 };
        self.call("POST", "/objects/remove", Some(serde_json::to_vec(&one)?)).await.map(drop)
    }

    /// Turns over one bit of a stored object.
    pub async fn rot(&self, bucket: &str, key: &str, bit: u64) -> Result<()> {
        let one = One { bucket: bucket.into(), key: key.into(), bit };
        self.call("POST", "/objects/rot", Some(serde_json::to_vec(&one)?)).await.map(drop)
    }

    async fn call(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<Answer> {
        let headers = [("content-type", "application/json".to_string())];
        let answer = http::request(self.admin, method, path, &headers, body.unwrap_or_default()).await?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200, "{method} {path}: {} {text}", answer.status);
        Ok(answer)
    }
}

fn json<T: DeserializeOwned>(answer: &Answer) -> Result<T> {
    serde_json::from_slice(&answer.body).context("reading the admin port's answer")
}
