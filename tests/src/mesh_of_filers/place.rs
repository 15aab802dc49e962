//! Where a cloud is, as `filer init` wants to be told.

use crate::{
    azurite::{ACCOUNT, Azurite, KEY},
    cloud::CloudProcess,
    rclone::Rclone,
};
use anyhow::{Context, Result};
use std::{fs, path::Path};

/// A cloud for filers to use. Secrets are put into files, whose names may travel from site to site.
#[derive(Clone, Debug)]
pub struct CloudPlace(String);

fn secret(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(format!("{name}.secret"));
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.display().to_string())
}

impl CloudPlace {
    /// A test cloud, called `name` by the filers.
    pub fn s3(name: &str, cloud: &CloudProcess, folder: &Path) -> Result<Self> {
        crate::sites::cloud_flag(cloud, name, folder).map(Self)
    }

    /// rclone's S3 server, called `name` by the filers.
    pub fn rclone(name: &str, rclone: &Rclone, folder: &Path) -> Result<Self> {
        Self::s3_at(name, &rclone.url(), rclone.bucket(), (Rclone::ACCESS_KEY, Rclone::SECRET_KEY), folder)
    }

    /// An S3 server at this address, with this key pair.
    pub fn s3_at(name: &str, url: &str, bucket: &str, (id, key): (&str, &str), folder: &Path) -> Result<Self> {
        let secret = secret(folder, name, key)?;
        let query = format!("name={name}&endpoint={url}&allow_http=true&access_key_id={id}");
        Ok(Self(format!("s3://{bucket}?{query}&secret_access_key_file={secret}")))
    }

    /// Azurite, called `name` by the filers.
    pub fn azure(name: &str, azurite: &Azurite, folder: &Path) -> Result<Self> {
        let (url, container, secret) = (azurite.url(), azurite.container(), secret(folder, name, KEY)?);
        let query = format!("name={name}&endpoint={url}&allow_http=true&access_key_file={secret}");
        Ok(Self(format!("azure://{ACCOUNT}/{container}?{query}")))
    }

    /// A directory; the filers call it `a` or `b`, by its place.
    pub fn directory(path: &Path) -> Self {
        Self(format!("dir:{}", path.display()))
    }

    /// With this setting of its section.
    pub fn set(self, key: &str, value: &str) -> Self {
        Self(format!("{}&{key}={}", self.0, value.replace(' ', "%20")))
    }

    /// The word behind `--cloud-a` or `--cloud-b`.
    pub fn flag(&self) -> &str {
        &self.0
    }
}
