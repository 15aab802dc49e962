//! Deletes of single blobs.
//!
//! The client knows deletes in batches alone, which accounts with a hierarchical namespace and some signatures refuse.

use super::{OpenError, wire::Connector};
use http::{Method, Request};
use mesh::words::chain;
use object_store::{
    ClientOptions,
    azure::{AzureAuthorizer, AzureCredentialProvider, MicrosoftAzure},
    client::{HttpClient, HttpConnector, HttpRequestBody},
    path::Path,
};

pub(super) struct Deleter {
    client: HttpClient,
    credentials: AzureCredentialProvider,
    account: String,
    /// Of the container, without a slash at its end.
    url: String,
}

impl Deleter {
    /// `endpoint` is the account's address, without a slash at its end.
    pub fn new(
        store: &MicrosoftAzure,
        options: &ClientOptions,
        account: &str,
        container: &str,
        endpoint: Option<&str>,
        cloud: &str,
    ) -> Result<Self, OpenError> {
        let endpoint = endpoint.map_or_else(|| format!("https://{account}.blob.core.windows.net"), str::to_owned);
        Ok(Self {
            client: Connector::default()
                .connect(options)
                .map_err(|source| OpenError::Client { cloud: cloud.into(), source })?,
            credentials: store.credentials().clone(),
            account: account.into(),
            url: format!("{endpoint}/{container}"),
        })
    }

    /// Asks for one delete. What was answered is seen by the exchange it runs in.
    pub async fn delete(&self, path: &Path) -> object_store::Result<()> {
        let failed = |why: String| object_store::Error::Generic { store: "MicrosoftAzure", source: why.into() };
        let mut request = Request::builder()
            .method(Method::DELETE)
            .uri(format!("{}/{}", self.url, percent_encode(path.as_ref())))
            .body(HttpRequestBody::empty())
            .map_err(|err| failed(chain(&err)))?;
        let credential = self.credentials.get_credential().await?;
        AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request)?;
        let answer = self.client.execute(request).await.map_err(|err| failed(chain(&err)))?;
        if answer.status().is_success() { Ok(()) } else { Err(failed(answer.status().to_string())) }
    }
}

/// A path as a URL has it.
fn percent_encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => encoded.push(byte.into()),
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_byte_by_byte() {
        assert_eq!(percent_encode("segments/0a/b-c_d.e~"), "segments/0a/b-c_d.e~");
        assert_eq!(percent_encode("a b%c/ö+?"), "a%20b%25c/%C3%B6%2B%3F");
    }
}
