//! Object store clients from settings.

use super::{
    AzureSettings, GcsSettings, Limits, OpenError, S3Settings, azure::Deleter, objects::Objects, receipt::Protocol,
    wire::Connector,
};
use object_store::{
    Certificate, ClientOptions, RetryConfig, StaticCredentialProvider,
    aws::AmazonS3Builder,
    azure::{AzureAccessKey, AzureConfigKey, AzureCredential, MicrosoftAzureBuilder},
    gcp::{GcpCredential, GoogleCloudStorageBuilder},
};
use std::{path::PathBuf, sync::Arc, time::Duration};

impl Objects {
    pub fn s3(settings: &S3Settings, name: &str) -> Result<Self, OpenError> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_virtual_hosted_style_request(settings.virtual_hosted)
            .with_unsigned_payload(settings.unsigned_payload)
            .with_disable_bulk_delete(true)
            .with_retry(no_retries())
            .with_client_options(client_options(&settings.limits, settings.allow_http, &settings.ca_file, name)?)
            .with_http_connector(Connector::default());
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        match (settings.id().resolve()?, settings.secret().resolve()?) {
            (Some(id), Some(secret)) => builder = builder.with_access_key_id(id).with_secret_access_key(secret),
            (None, None) => {}
            (Some(_), None) => return Err(alone("access_key_id", "secret_access_key")),
            (None, Some(_)) => return Err(alone("secret_access_key", "access_key_id")),
        }
        if let Some(token) = &settings.session_token {
            builder = builder.with_token(&token.0);
        }
        let store = builder.build().map_err(|source| OpenError::Client { cloud: name.into(), source })?;
        Self::new(name, Protocol::S3, Box::new(store), &settings.prefix, &settings.limits)
    }

    pub fn azure(settings: &AzureSettings, name: &str) -> Result<Self, OpenError> {
        let refused = |source| OpenError::Client { cloud: name.into(), source };
        let options = client_options(&settings.limits, settings.allow_http, &settings.ca_file, name)?;
        let mut builder = MicrosoftAzureBuilder::new()
            .with_account(&settings.account)
            .with_container_name(&settings.container)
            .with_retry(no_retries())
            .with_client_options(options.clone());
        let endpoint = settings.endpoint.as_deref().map(|endpoint| endpoint.trim_end_matches('/'));
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint.into());
        }
        let mut connector = Connector::default();
        match (settings.key().resolve()?, settings.signature().resolve()?) {
            (Some(key), None) => {
                let key = AzureAccessKey::try_new(&key).map_err(|_| {
                    let why = "it is no text in base64, as the keys of an account are".into();
                    OpenError::Secret { name: settings.key().setting(), why }
                })?;
                connector.shared_key =
                    Some((settings.account.clone(), Arc::new(AzureCredential::AccessKey(key.clone()))));
                let credential = AzureCredential::AccessKey(key);
                builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
            }
            (None, Some(sas)) => {
                builder = builder.with_config(AzureConfigKey::SasKey, sas);
            }
            (None, None) => {}
            (Some(_), Some(_)) => {
                let why = "give either the account's key or a SAS".into();
                return Err(OpenError::Setting { name: "access_key", why });
            }
        }
        let store = builder.with_http_connector(connector).build().map_err(refused)?;
        let deleter = Deleter::new(&store, &options, &settings.account, &settings.container, endpoint, name)?;
        let mut objects = Self::new(name, Protocol::Azure, Box::new(store), &settings.prefix, &settings.limits)?;
        objects.deleter = Some(deleter);
        Ok(objects)
    }

    pub fn gcs(settings: &GcsSettings, name: &str) -> Result<Self, OpenError> {
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&settings.bucket)
            .with_retry(no_retries())
            .with_client_options(client_options(&settings.limits, settings.allow_http, &settings.ca_file, name)?)
            .with_http_connector(Connector::default());
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_base_url(endpoint.trim_end_matches('/'));
        }
        if settings.anonymous {
            // An empty token is not sent. Without one, the client would ask the machine for its identity all the same.
            let nobody = GcpCredential { bearer: String::new() };
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
        }
        if let Some(path) = &settings.service_account_path {
            builder = builder.with_service_account_path(path.display().to_string());
        }
        let store = builder.build().map_err(|source| OpenError::Client { cloud: name.into(), source })?;
        Self::new(name, Protocol::Gcs, Box::new(store), &settings.prefix, &settings.limits)
    }
}

fn alone(given: &'static str, missing: &str) -> OpenError {
    OpenError::Setting { name: given, why: format!("it needs {missing} with it") }
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

#[expect(clippy::disallowed_methods, reason = "certificates that the operator names lie in a file")]
fn client_options(
    limits: &Limits,
    allow_http: bool,
    ca_file: &Option<PathBuf>,
    name: &str,
) -> Result<ClientOptions, OpenError> {
    // Whoever comes first installs the provider; that it is there already is no failure.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut options = ClientOptions::new()
        .with_allow_http(allow_http)
        .with_http1_only()
        .with_connect_timeout(Duration::from_millis(limits.connect_timeout_ms))
        .with_timeout_disabled()
        .with_pool_max_idle_per_host(limits.idle_connections_max);
    if let Some(path) = ca_file {
        let unreadable = |source| OpenError::Path { cloud: name.into(), name: "ca_file", path: path.clone(), source };
        let pem = std::fs::read(path).map_err(unreadable)?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|err| {
            let why = format!("{} holds no certificates as PEM: {err}", path.display());
            OpenError::Setting { name: "ca_file", why }
        })?;
        options = certificates.into_iter().fold(options, ClientOptions::with_root_certificate);
    }
    Ok(options)
}
