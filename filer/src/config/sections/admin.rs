//! `[admin]`: the door of the operator.

use crate::config::{
    form::Form,
    kinds::{AddressOrOff, FilePath, Maybe},
};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};

/// `[admin]`: the door of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminSettings {
    /// A Unix socket for the filer's own user.
    pub socket: PathBuf,
    /// A loopback address, besides.
    pub listen: Option<SocketAddr>,
    /// Holds the token that callers of `listen` must show.
    pub token_file: Option<PathBuf>,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { socket: "admin.sock".into(), listen: None, token_file: None }
    }
}

impl AdminSettings {
    pub(in crate::config) fn form(&mut self, form: &mut Form<'_, '_>) {
        let doc = "The Unix socket (mode 0600) through which filer status and the other commands talk to this filer.";
        form.set("socket", doc, FilePath, &mut self.socket);
        let doc = "A loopback address that serves the same, or \"off\". Callers must show the token of token_file.";
        form.set("listen", doc, AddressOrOff, &mut self.listen);
        let doc = "A file of mode 0600 with a token of 16 or more characters.";
        form.set("token_file", doc, Maybe(FilePath, "\"admin.token\""), &mut self.token_file);
    }
}
