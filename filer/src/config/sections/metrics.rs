//! `[metrics]`: the door of monitoring.

use crate::config::{form::Form, kinds::AddressOrOff};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsSettings {
    pub listen: Option<SocketAddr>,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 7480))) }
    }
}

impl MetricsSettings {
    pub(in crate::config) fn form(&mut self, form: &mut Form<'_, '_>) {
        let doc = "Serves /metrics (Prometheus) and /healthz without a password; \"off\" serves neither.";
        form.set("listen", doc, AddressOrOff, &mut self.listen);
    }
}
