//! `[clouds.primary]` and `[clouds.secondary]`: the two clouds, and where their credentials come from.
//!
//! Maps onto [`CloudSettings`]. What the type cannot say is said here: credentials must be given, or their absence be
//! meant (`machine_role = true`).

use super::{
    buckets,
    form::Form,
    kinds::{Choice, FilePath, Flag, Maybe, Millis, Such, Text, count, text},
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use storage::{
    clouds::{AzureSettings, CloudSettings, DirectorySettings, GcsSettings, Limits, S3Settings, Secret},
    ids::CloudId,
};

/// One of the two clouds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloudEntry {
    /// For people; the two differ.
    pub name: String,
    pub settings: CloudSettings,
    /// Credentials come from the machine itself, as instances of the provider have them.
    pub machine_role: bool,
}

/// `[clouds]`: the cloud that should be active, and the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloudsSettings {
    pub primary: CloudEntry,
    pub secondary: CloudEntry,
}

impl CloudsSettings {
    /// The entry of cloud `a` (the primary) or `b`.
    pub fn entry(&self, cloud: CloudId) -> &CloudEntry {
        match cloud {
            CloudId::A => &self.primary,
            CloudId::B => &self.secondary,
        }
    }

    /// Two directories below `base`, so that a filer runs with no server at all.
    pub fn directories(base: &Path) -> Self {
        let entry = |name: &str| CloudEntry {
            name: name.into(),
            settings: CloudSettings::Directory(DirectorySettings::new(base.join("clouds").join(name))),
            machine_role: false,
        };
        Self { primary: entry("a"), secondary: entry("b") }
    }

    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
        let doc = "The cloud that is active while all is well.";
        form.section("primary", doc, |form| self.primary.form(form));
        form.section(
            "secondary",
            "The other cloud: of another provider, so that one failure cannot reach both.",
            |form| {
                self.secondary.form(form);
            },
        );
    }
}

/// Whether a setting of this name holds a secret itself, and does not only say where it is. What nobody knows counts by its
/// sound.
pub(crate) fn holds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let says_where = ["_env", "_file", "_path"].iter().any(|end| key.ends_with(end));
    let sounds =
        ["secret", "password", "passwd", "token", "credential", "signature"].iter().any(|word| key.contains(word));
    let is_one = |part: &str| part.ends_with("key") || matches!(part, "sas" | "sig" | "pwd");
    key != "access_key_id" && !says_where && (sounds || key.split(['_', '-']).any(is_one))
}

/// Whether a problem with this setting is that credentials are still to be given.
pub(crate) fn asks_for_credentials(setting: &str) -> bool {
    let of_cloud = ["clouds.primary", "clouds.secondary"].iter().find_map(|cloud| setting.strip_prefix(*cloud));
    matches!(of_cloud, Some("" | ".access_key_id" | ".secret_access_key" | ".access_key" | ".sas"))
}

/// The kinds of clouds.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum CloudKind {
    S3,
    Azure,
    Gcs,
    Directory,
}

const KINDS: &[(&str, CloudKind)] =
    &[("s3", CloudKind::S3), ("azure", CloudKind::Azure), ("gcs", CloudKind::Gcs), ("directory", CloudKind::Directory)];

impl CloudEntry {
    /// The word for its kind, such as `s3`.
    pub fn kind(&self) -> &'static str {
        let kind = self.kind_of();
        KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(word, _)| word)
    }

    pub(super) fn kind_of(&self) -> CloudKind {
        match self.settings {
            CloudSettings::S3(_) => CloudKind::S3,
            CloudSettings::Azure(_) => CloudKind::Azure,
            CloudSettings::Gcs(_) => CloudKind::Gcs,
            CloudSettings::Directory(_) => CloudKind::Directory,
        }
    }

    /// The same without secrets: names of variables and paths of files stay, since they hold none.
    pub fn without_secrets(&self) -> Self {
        let mut entry = self.clone();
        match &mut entry.settings {
            CloudSettings::S3(s3) => (s3.secret_access_key, s3.session_token) = (None, None),
            CloudSettings::Azure(azure) => (azure.access_key, azure.sas) = (None, None),
            CloudSettings::Gcs(_) | CloudSettings::Directory(_) => {}
        }
        entry
    }

    /// Keeps the kind alone: everything else is as if it had been left out.
    pub(super) fn forget(&mut self) {
        *self = Self { name: String::new(), settings: blank(self.kind_of()), machine_role: false };
    }

    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
        if !form.present() {
            if !form.is_unread("") {
                form.problem("", "is missing: a CloudFS needs two clouds; add the section with kind and name");
            }
            return;
        }
        let mut kind = self.kind_of();
        form.need("kind", "\"s3\", \"azure\", \"gcs\" or \"directory\".", Choice(KINDS), &mut kind);
        let kind_is_known = form.has("kind") && !form.is_unread("kind");
        form.need("name", "For people: logs, the status page and metrics call the cloud so.", text(), &mut self.name);
        if form.reads() {
            if !kind_is_known {
                form.lenient();
                return;
            }
            self.settings = blank(kind);
        }
        match &mut self.settings {
            CloudSettings::S3(s3) => s3_form(s3, &mut self.machine_role, form),
            CloudSettings::Azure(azure) => azure_form(azure, &mut self.machine_role, form),
            CloudSettings::Gcs(gcs) => gcs_form(gcs, &mut self.machine_role, form),
            CloudSettings::Directory(directory) => {
                let doc = "An existing directory, local or mounted.";
                form.need("path", doc, Such(FilePath, "\"/mnt/cloud\""), &mut directory.path);
                prefix(&mut directory.prefix, form);
                let doc = "Calls at once, each of which holds a thread: a mount that hangs takes no more than these.";
                form.set("calls_in_flight_max", doc, count(1..=200), &mut directory.calls_in_flight_max);
                limits(&mut directory.limits, form);
            }
        }
    }
}

fn blank(kind: CloudKind) -> CloudSettings {
    let blank = |kind: &str, names: &[&str]| {
        let mut table = toml::Table::from_iter([("kind".to_string(), toml::Value::from(kind))]);
        table.extend(names.iter().map(|name| (name.to_string(), toml::Value::from(""))));
        table.try_into().expect("these are all the settings that a cloud of this kind cannot be without")
    };
    match kind {
        CloudKind::S3 => blank("s3", &["bucket"]),
        CloudKind::Azure => blank("azure", &["account", "container"]),
        CloudKind::Gcs => blank("gcs", &["bucket"]),
        CloudKind::Directory => blank("directory", &["path"]),
    }
}

fn prefix(prefix: &mut String, form: &mut Form<'_, '_>) {
    form.set("prefix", "Objects lie below this prefix.", Text(|_| Ok(())), prefix);
}

fn endpoint(
    key_doc: &'static str,
    sample: &'static str,
    endpoint: &mut Option<String>,
    allow_http: &mut bool,
    form: &mut Form<'_, '_>,
) {
    let url = Text(|url| match url.split_once("://") {
        // It goes into files and onto pages that hold no secret.
        Some((_, rest)) if rest.split('/').next().is_some_and(|host| host.contains('@')) => {
            Err("holds user:password@; credentials have settings of their own, write the address alone".into())
        }
        Some((_, rest)) if rest.contains(['?', '#']) => {
            Err("has more than an address behind a ? or #; write the address alone".into())
        }
        // A connection string, or a password before an address without its scheme.
        _ if url.contains(['@', '=', ';']) => {
            Err("holds more than an address, perhaps a key; write the address alone".into())
        }
        Some(("http" | "https", host)) if !host.is_empty() && !host.contains(char::is_whitespace) => Ok(()),
        _ => Err(format!("\"{url}\" is no address; write such as \"https://s3.example.org\"")),
    });
    form.set("endpoint", key_doc, Maybe(url, sample), endpoint);
    form.set("allow_http", "Lets an http:// endpoint pass: for tests and closed networks.", Flag, allow_http);
    let may_be_http = *allow_http || form.is_unread("allow_http");
    if form.reads() && !may_be_http && endpoint.as_deref().is_some_and(|url| url.starts_with("http://")) {
        form.problem(
            "endpoint",
            "is http://, which anybody on the way can read; use https://, or add allow_http = true",
        );
    }
}

/// Judges a name by the rules of the provider itself, where it is not a name of another server.
fn by_the_provider(key: &str, name: &str, rules: fn(&str) -> Result<(), String>, form: &mut Form<'_, '_>) {
    if form.has(key)
        && !form.is_unread(key)
        && !form.has("endpoint")
        && let Err(what) = rules(name)
    {
        form.problem(key, what);
    }
}

fn words(
    key: &'static str,
    doc: &'static str,
    sample: &'static str,
    value: &mut Option<String>,
    form: &mut Form<'_, '_>,
) {
    form.set(key, doc, Maybe(text(), sample), value);
}

/// The name of an environment variable that holds what `key` is called after.
fn variable(key: &'static str, sample: &'static str, value: &mut Option<String>, form: &mut Form<'_, '_>) {
    let name = Text(|name| {
        let is_of_a_name = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if name.bytes().all(is_of_a_name) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit()) {
            return Ok(());
        }
        // It may be the secret itself.
        Err("is no name of an environment variable, which has letters, digits, '_', '.' and '-'; write the name, and have the variable hold the rest".into())
    });
    form.set(key, "", Maybe(name, sample), value);
}

fn secret(key: &'static str, doc: &'static str, value: &mut Option<Secret>, form: &mut Form<'_, '_>) {
    let mut plain = value.take().map(|secret| secret.0);
    words(key, doc, "\"..\"", &mut plain, form);
    *value = plain.map(Secret);
}

fn file(
    key: &'static str,
    doc: &'static str,
    sample: &'static str,
    value: &mut Option<PathBuf>,
    form: &mut Form<'_, '_>,
) {
    form.set(key, doc, Maybe(FilePath, sample), value);
}

fn role(machine_role: &mut bool, form: &mut Form<'_, '_>) {
    let doc = "No credentials here: those of the machine itself are used, as instances of the provider have them.";
    form.set("machine_role", doc, Flag, machine_role);
}

fn ca_file(value: &mut Option<PathBuf>, form: &mut Form<'_, '_>) {
    file("ca_file", "Certificates (PEM) to trust besides the system's.", "\"cloud-ca.pem\"", value, form);
}

fn limits(limits: &mut Limits, form: &mut Form<'_, '_>) {
    let most = 3_600_000;
    form.set("connect_timeout", "Longest time to connect.", Millis(10..=most), &mut limits.connect_timeout_ms);
    let doc = "Longest time for one attempt; time_per_mib is added for each MiB of it. A put has the time for all puts that are under\nway with it, as they share the link: up to half of segments.delete_grace. So has a get of a resync for all gets.";
    form.set("request_timeout", doc, Millis(10..=most), &mut limits.request_timeout_ms);
    form.set("time_per_mib", "", Millis(0..=most), &mut limits.ms_per_mib);
    let doc = "Idle connections that are kept.";
    form.set("idle_connections_max", doc, count(0..=10_000), &mut limits.idle_connections_max);
    let doc = "Reads every object back after its put: for stores whose checksums look like an MD5 and are none.";
    form.set("always_read_back", doc, Flag, &mut limits.always_read_back);
}

/// Which setting says where a secret is, or holds it: at most one of `name`, `name_env` and `name_file` may.
fn place(name: &str, form: &mut Form<'_, '_>) -> Option<String> {
    let keys = [name.to_string(), format!("{name}_env"), format!("{name}_file")];
    let given: Vec<String> = keys.into_iter().filter(|key| form.has(key)).collect();
    let (first, more) = given.split_first()?;
    for another in more {
        let what = format!("is one place too many beside {first}{}; keep one of them", form.origin(first));
        form.problem(another, what);
    }
    Some(first.clone())
}

/// The ways in which a cloud is to know us, of which it takes one. `ways`: what the file has, each setting that begins one;
/// `of`: what there is to choose from. Of one that cannot be read nothing is said: it may be meant to say no.
fn one_way(ways: &[String], of: &str, form: &mut Form<'_, '_>) {
    let known: Vec<&String> = ways.iter().filter(|way| !form.is_unread(way)).collect();
    let Some((first, more)) = known.split_first() else { return };
    for another in more {
        let what = format!("contradicts {first}{}; keep one of {of}", form.origin(first));
        form.problem(another, what);
    }
}

/// Whether the machine's own credentials are meant, as far as the file can be read.
fn is_role(machine_role: bool, form: &Form<'_, '_>) -> bool {
    machine_role || form.is_unread("machine_role")
}

/// A bucket's name, to show where none is given.
const BUCKET: &str = "\"example-files\"";

fn s3_form(s3: &mut S3Settings, machine_role: &mut bool, form: &mut Form<'_, '_>) {
    form.need("bucket", "", Such(Text(buckets::bucket), BUCKET), &mut s3.bucket);
    prefix(&mut s3.prefix, form);
    let doc = "Of a store that speaks S3; AWS itself when not set.";
    endpoint(doc, "\"https://s3.example.org\"", &mut s3.endpoint, &mut s3.allow_http, form);
    form.set("region", "", text(), &mut s3.region);
    let doc =
        "Credentials: each half in this file, in an environment variable (.._env) or in a file of its own (.._file).";
    words("access_key_id", doc, "\"..\"", &mut s3.access_key_id, form);
    variable("access_key_id_env", "\"FILER_S3_ID\"", &mut s3.access_key_id_env, form);
    file("access_key_id_file", "", "\"s3.id\"", &mut s3.access_key_id_file, form);
    secret("secret_access_key", "", &mut s3.secret_access_key, form);
    variable("secret_access_key_env", "\"FILER_S3_SECRET\"", &mut s3.secret_access_key_env, form);
    file("secret_access_key_file", "", "\"s3.secret\"", &mut s3.secret_access_key_file, form);
    secret("session_token", "The third part of temporary credentials.", &mut s3.session_token, form);
    role(machine_role, form);
    form.set("virtual_hosted", "Puts the bucket into the host name instead of the path.", Flag, &mut s3.virtual_hosted);
    let may_be_old = s3.region == "us-east-1" && !s3.virtual_hosted;
    let rules = if may_be_old { buckets::bucket_of_aws_or_old } else { buckets::bucket_of_aws };
    by_the_provider("bucket", &s3.bucket, rules, form);
    let doc = "Leaves the body out of the signature (TLS and Content-MD5 guard it): spares processor time.";
    form.set("unsigned_payload", doc, Flag, &mut s3.unsigned_payload);
    ca_file(&mut s3.ca_file, form);
    limits(&mut s3.limits, form);
    if !form.reads() {
        return;
    }
    let (id, key, role) =
        (place("access_key_id", form), place("secret_access_key", form), is_role(*machine_role, form));
    match (id, key, role) {
        (Some(_), Some(_), false) | (None, None, true) => {}
        (None, None, false) => form.problem(
            "",
            "has no credentials; give access_key_id and secret_access_key (or their _env or _file), or machine_role = true",
        ),
        (Some(id), None, false) => {
            let what = format!("is missing beside {id}; add it, or its _env or _file");
            form.problem_beside(&id, "secret_access_key", what);
        }
        (None, Some(key), false) => {
            let what = format!("is missing beside {key}; add it, or its _env or _file");
            form.problem_beside(&key, "access_key_id", what);
        }
        (id, key, true) => {
            let mut ways: Vec<String> = id.or(key).into_iter().collect();
            ways.push("machine_role".into());
            one_way(&ways, "the access key and machine_role", form);
        }
    }
}

fn azure_form(azure: &mut AzureSettings, machine_role: &mut bool, form: &mut Form<'_, '_>) {
    let (account, container) = (Text(buckets::account), Text(buckets::container));
    form.need("account", "The storage account.", Such(account, "\"examplefiles\""), &mut azure.account);
    form.need("container", "", Such(container, "\"files\""), &mut azure.container);
    prefix(&mut azure.prefix, form);
    let doc = "The account's address, where it is not Azure's own.";
    endpoint(doc, "\"http://127.0.0.1:10000/devstoreaccount1\"", &mut azure.endpoint, &mut azure.allow_http, form);
    by_the_provider("account", &azure.account, buckets::account_of_azure, form);
    let doc = "Credentials: the account's key, or a shared access signature (sas); in this file, in an environment variable\n(.._env) or in a file of its own (.._file).";
    secret("access_key", doc, &mut azure.access_key, form);
    variable("access_key_env", "\"FILER_AZURE_KEY\"", &mut azure.access_key_env, form);
    file("access_key_file", "", "\"azure.key\"", &mut azure.access_key_file, form);
    secret("sas", "", &mut azure.sas, form);
    variable("sas_env", "\"FILER_AZURE_SAS\"", &mut azure.sas_env, form);
    file("sas_file", "", "\"azure.sas\"", &mut azure.sas_file, form);
    role(machine_role, form);
    ca_file(&mut azure.ca_file, form);
    limits(&mut azure.limits, form);
    if !form.reads() {
        return;
    }
    let mut ways: Vec<String> = [place("access_key", form), place("sas", form)].into_iter().flatten().collect();
    if is_role(*machine_role, form) {
        ways.push("machine_role".into());
    }
    if ways.is_empty() {
        form.problem("", "has no credentials; give access_key or sas (or their _env or _file), or machine_role = true");
    }
    one_way(&ways, "access_key, sas and machine_role", form);
}

fn gcs_form(gcs: &mut GcsSettings, machine_role: &mut bool, form: &mut Form<'_, '_>) {
    form.need("bucket", "", Such(Text(buckets::bucket), BUCKET), &mut gcs.bucket);
    prefix(&mut gcs.prefix, form);
    let doc = "Where it is not Google's own.";
    endpoint(doc, "\"https://storage.example.org\"", &mut gcs.endpoint, &mut gcs.allow_http, form);
    by_the_provider("bucket", &gcs.bucket, buckets::bucket_of_google, form);
    let doc = "Credentials: the JSON file of a service account.";
    file("service_account_path", doc, "\"service-account.json\"", &mut gcs.service_account_path, form);
    role(machine_role, form);
    form.set("anonymous", "Sends requests unsigned: for emulators, which check nothing.", Flag, &mut gcs.anonymous);
    ca_file(&mut gcs.ca_file, form);
    limits(&mut gcs.limits, form);
    if !form.reads() {
        return;
    }
    let ways = [
        ("service_account_path", form.has("service_account_path")),
        ("machine_role", is_role(*machine_role, form)),
        ("anonymous", gcs.anonymous || form.is_unread("anonymous")),
    ];
    let ways: Vec<String> = ways.into_iter().filter(|(_, given)| *given).map(|(way, _)| way.to_string()).collect();
    if ways.is_empty() {
        form.problem("", "has no credentials; give service_account_path, or machine_role = true");
    }
    one_way(&ways, "service_account_path, machine_role and anonymous", form);
}
