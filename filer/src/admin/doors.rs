//! The listeners: a Unix socket for the filer's own user, a loopback port for those who know the token, and a port for
//! monitoring.

#![expect(clippy::disallowed_methods, reason = "a Unix socket and a token are real files")]

use super::{Refusal, Steering, metrics, routes};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use std::{
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, UnixListener};

/// Shortest token, in characters.
const TOKEN_CHARS_MIN: usize = 16;
/// Largest token file, in bytes.
const TOKEN_BYTES_MAX: u64 = 4 << 10;

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Another filer answers there.
    #[error("{} is in use: a filer already serves this site", path.display())]
    InUse { path: PathBuf },
    /// The socket cannot be made.
    #[error("the admin socket {} cannot be made", path.display())]
    Socket { path: PathBuf, source: std::io::Error },
    /// The port cannot be listened on.
    #[error("{setting} = \"{address}\" cannot be listened on")]
    Listen { setting: &'static str, address: SocketAddr, source: std::io::Error },
    /// The token cannot be had.
    #[error("the token file {}: {what}", path.display())]
    Token { path: PathBuf, what: String },
}

/// The Unix socket, made and ready. It vanishes with this value.
pub struct AdminSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl AdminSocket {
    /// Makes the socket, for its owner alone at every moment: it is born in a directory that nobody else can enter,
    /// and moved to its place once its mode is right. A socket that a dead filer left is replaced.
    pub fn bind(path: &Path) -> Result<Self, DoorError> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(DoorError::InUse { path: path.into() });
        }
        let cradle = path.with_added_extension("new");
        let make = || -> std::io::Result<UnixListener> {
            if let Ok(found) = std::fs::symlink_metadata(path)
                && !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
            {
                return Err(std::io::Error::other("something that is no socket is there; move it away"));
            }
            if cradle.is_dir() {
                std::fs::remove_dir_all(&cradle)?;
            }
            std::fs::DirBuilder::new().mode(0o700).create(&cradle)?;
            let born = cradle.join("s");
            let listener = UnixListener::bind(&born)?;
            std::fs::set_permissions(&born, std::fs::Permissions::from_mode(0o600))?;
            std::fs::rename(&born, path)?;
            std::fs::remove_dir(&cradle)?;
            Ok(listener)
        };
        let listener = make().map_err(|source| DoorError::Socket { path: path.into(), source })?;
        Ok(Self { path: path.into(), listener })
    }

    /// Serves until `stop` resolves; calls at work are finished first.
    pub async fn serve(self, site: Arc<dyn Steering>, stop: impl Future<Output = ()> + Send + 'static) {
        let Self { path, listener } = self;
        let served = axum::serve(listener, routes::routes(site)).with_graceful_shutdown(stop).await;
        if let Err(e) = served {
            tracing::warn!(error = %e, "the admin socket stopped");
        }
        let _ = std::fs::remove_file(path);
    }
}

/// The loopback port for those who know the token, ready.
pub struct TokenDoor {
    listener: TcpListener,
    token: Arc<str>,
}

impl TokenDoor {
    /// Listens at `address`; callers must show the token of `token_file`, which others than its owner cannot read.
    pub async fn bind(address: SocketAddr, token_file: &Path) -> Result<Self, DoorError> {
        let token = read_token(token_file).map_err(|what| DoorError::Token { path: token_file.into(), what })?;
        let setting = "admin.listen";
        let listener = listen(setting, address).await?;
        Ok(Self { listener, token: token.into() })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until `stop` resolves.
    pub async fn serve(self, site: Arc<dyn Steering>, stop: impl Future<Output = ()> + Send + 'static) {
        let guarded = routes::routes(site).layer(axum::middleware::from_fn_with_state(self.token, shows_token));
        if let Err(e) = axum::serve(self.listener, guarded).with_graceful_shutdown(stop).await {
            tracing::warn!(error = %e, "the admin port stopped");
        }
    }
}

/// `/metrics` and `/healthz`, ready.
pub struct MetricsDoor {
    listener: TcpListener,
}

impl MetricsDoor {
    /// Listens at `address`.
    pub async fn bind(address: SocketAddr) -> Result<Self, DoorError> {
        Ok(Self { listener: listen("metrics.listen", address).await? })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until `stop` resolves.
    pub async fn serve(self, site: Arc<dyn Steering>, stop: impl Future<Output = ()> + Send + 'static) {
        let routes = Router::new().route("/metrics", get(metrics_page)).route("/healthz", get(health_page));
        if let Err(e) = axum::serve(self.listener, routes.with_state(site)).with_graceful_shutdown(stop).await {
            tracing::warn!(error = %e, "the metrics port stopped");
        }
    }
}

async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, DoorError> {
    TcpListener::bind(address).await.map_err(|source| DoorError::Listen { setting, address, source })
}

/// Why there is no token for callers in this file, if so.
pub(crate) fn check_token_file(path: &Path) -> Result<(), String> {
    read_token(path).map(drop)
}

fn read_token(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mode = file.metadata().map_err(|e| e.to_string())?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err("others than its owner can read it; set its mode to 0600".into());
    }
    let mut text = String::new();
    file.by_ref().take(TOKEN_BYTES_MAX).read_to_string(&mut text).map_err(|e| e.to_string())?;
    let token = text.trim();
    if token.len() < TOKEN_CHARS_MIN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("a token is {TOKEN_CHARS_MIN} or more ASCII characters without spaces"));
    }
    Ok(token.into())
}

async fn shows_token(State(token): State<Arc<str>>, headers: HeaderMap, request: Request, next: Next) -> Response {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    // The comparison takes the same time wherever the two differ.
    if shown.is_some_and(|shown| bool::from(shown.ct_eq(token.as_bytes()))) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    let refusal = Refusal::Request("show the token of admin.token_file: Authorization: Bearer ..".into());
    (StatusCode::UNAUTHORIZED, challenge, axum::Json(refusal)).into_response()
}

async fn metrics_page(State(site): State<Arc<dyn Steering>>) -> Response {
    let status = match routes::status_of(&*site).await {
        Ok(status) => status,
        Err(refusal) => return refusal.into_response(),
    };
    let extra = site.extra_metrics().await;
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::metrics_text(&status, &extra)).into_response()
}

/// Whether the filer answers at all. One that lost the majority, or both clouds, still serves what it has. That it was
/// removed is said, and no more: a peer that lies must not have it taken out of service.
async fn health_page(State(site): State<Arc<dyn Steering>>) -> Response {
    match routes::status_of(&*site).await {
        Ok(status) => {
            let majority = if status.has_majority { "yes" } else { "no" };
            let absorbs = if status.absorbs_failure { "yes" } else { "no" };
            let removed = status.removed.map_or_else(String::new, |why| format!("removed: {why}\n"));
            format!("ok\nmajority: {majority}\nabsorbs a failure: {absorbs}\n{removed}").into_response()
        }
        Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")).into_response(),
    }
}
