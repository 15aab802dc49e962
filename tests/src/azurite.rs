//! Azurite, Microsoft's Azure Blob emulator: a cloud of another protocol.
//!
//! It is installed by `make test` (npm, into the cache folder) and started here on a free port with an empty location,
//! because it slows down as blobs pile up.

use crate::http;
use crate::process::{Launch, Process, free_port};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The account every Azurite has.
pub const ACCOUNT: &str = "devstoreaccount1";

/// Its key, which is public: see Azurite's documentation.
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Where npm put it, in place of `~/.cache/filermesh/npm`.
const NPM_FOLDER: &str = "FILERMESH_NPM";

/// The blob service below npm's folder.
const PROGRAM: &str = "node_modules/azurite/dist/src/blob/main.js";

/// How long Node may take to load it.
const START_WITHIN: Duration = Duration::from_secs(60);

/// The protocol version we sign for.
const VERSION: &str = "2021-12-02";

/// A running Azurite. Dropped, it is killed.
pub struct Azurite {
    process: Process,
    addr: SocketAddr,
    container: String,
}

/// Finds the installed program.
pub fn locate() -> Result<PathBuf> {
    let folder = match std::env::var_os(NPM_FOLDER) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = std::env::var_os("HOME").context("no HOME to look for Azurite in")?;
            PathBuf::from(home).join(".cache/filermesh/npm")
        }
    };
    let program = folder.join(PROGRAM);
    ensure!(program.is_file(), "Azurite is not installed ({} is missing): `make test` installs it", program.display());
    Ok(program)
}

impl Azurite {
    /// Starts it on a free port, with blobs and output below `folder`, and creates one container.
    pub async fn start(folder: &Path, container: &str) -> Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)), folder, container).await
    }

    /// The same at a port it had before; what it held below `folder` is found again.
    pub async fn start_at(addr: SocketAddr, folder: &Path, container: &str) -> Result<Self> {
        let program = locate()?;
        let launch = Launch::new("azurite", "node", folder.join("azurite.log"))
            .arg(program)
            .args(["--blobHost", &addr.ip().to_string(), "--blobPort", &addr.port().to_string()])
            .arg("--location")
            .arg(folder.join("azurite"))
            .args(["--skipApiVersionCheck", "--disableTelemetry", "--silent"]);
        let mut process = launch.start()?;
        process.tcp_port(addr, START_WITHIN).await?;
        let azurite = Self { process, addr, container: container.into() };
        azurite.create_container(container).await?;
        Ok(azurite)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The account's endpoint: `http://127.0.0.1:PORT/devstoreaccount1`.
    pub fn url(&self) -> String {
        format!("http://{}/{ACCOUNT}", self.addr)
    }

    /// The container it was started with.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The process, to pause or kill.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Creates a container; one that is there already is fine.
    pub async fn create_container(&self, container: &str) -> Result<()> {
        let path = format!("/{ACCOUNT}/{container}");
        // Any date will do for Azurite as long as it is signed, except that it must be one.
        let date = "Thu, 01 Jan 2026 00:00:00 GMT";
        // Shared Key: the method, eleven standard headers (all empty here), our headers, and the resource, whose path
        // has the account's name twice since Azurite carries it in the URL.
        let signed = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{VERSION}\n/{ACCOUNT}{path}\nrestype:container"
        );
        let key = BASE64_STANDARD.decode(KEY).context("reading the account's key")?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).context("using the account's key")?;
        mac.update(signed.as_bytes());
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        let headers = [
            ("x-ms-date", date.to_string()),
            ("x-ms-version", VERSION.to_string()),
            ("content-length", "0".to_string()),
            ("authorization", format!("SharedKey {ACCOUNT}:{signature}")),
        ];
        let answer = http::request(self.addr, "PUT", &format!("{path}?restype=container"), &headers, "").await?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(matches!(answer.status, 201 | 409), "creating container {container}: {} {text}", answer.status);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::temp_dir;
    use object_store::azure::MicrosoftAzureBuilder;
    use object_store::{ObjectStoreExt, path::Path};

    #[tokio::test]
    async fn azurite_starts_and_holds_blobs() {
        let folder = temp_dir("azurite").unwrap();
        let azurite = Azurite::start(folder.path(), "segments").await.unwrap();
        azurite.create_container("segments").await.unwrap();
        let store = MicrosoftAzureBuilder::new()
            .with_account(ACCOUNT)
            .with_access_key(KEY)
            .with_endpoint(azurite.url())
            .with_container_name(azurite.container())
            .with_allow_http(true)
            .build()
            .unwrap();
        let path = Path::from("a/b");
        store.put(&path, "hello".into()).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "hello");
    }
}
