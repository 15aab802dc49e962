//! The two clouds: what each kind needs, what its places may be called, and how a filer is known to it.

use super::*;
use storage::clouds::CloudSettings;

#[test]
fn every_kind_of_cloud_is_read_and_written() {
    let text = "name = \"ams\"\n[clouds.primary]\nkind = \"s3\"\nname = \"aws\"\nbucket = \"bucket\"\nprefix = \"fs\"\n\
        access_key_id = \"id\"\nsecret_access_key_env = \"S\"\nregion = \"eu-west-1\"\nrequest_timeout = \"20 s\"\n\
        [clouds.secondary]\nkind = \"azure\"\nname = \"azure\"\naccount = \"acc\"\ncontainer = \"container\"\naccess_key_file = \"azure.key\"\n";
    let config = parsed(text);
    let CloudSettings::S3(s3) = &config.clouds.primary.settings else { panic!("S3") };
    assert_eq!((s3.bucket.as_str(), s3.region.as_str(), s3.limits.request_timeout_ms), ("bucket", "eu-west-1", 20_000));
    let CloudSettings::Azure(azure) = &config.clouds.secondary.settings else { panic!("Azure") };
    assert_eq!(azure.access_key_file.as_deref(), Some(Path::new("/site/azure.key")));
    assert_eq!((config.clouds.primary.kind(), config.clouds.secondary.kind()), ("s3", "azure"));
    let CloudSettings::S3(s3) = parsed(&text.replace("\"S\"", "\"s3.secret-1_x\"")).clouds.primary.settings else {
        panic!("S3")
    };
    assert_eq!(s3.secret_access_key_env.as_deref(), Some("s3.secret-1_x"), "services may call variables so");
    assert_eq!(parsed(&config.to_toml(Path::new("/site"))), config);
    let gcs = text.replace("kind = \"azure\"", "kind = \"gcs\"").replace(
        "account = \"acc\"\ncontainer = \"container\"\naccess_key_file = \"azure.key\"",
        "bucket = \"other_bucket\"\nmachine_role = true",
    );
    let config = parsed(&gcs);
    assert!(config.clouds.secondary.machine_role);
    assert_eq!(parsed(&config.to_toml(Path::new("/site"))), config);
}

#[test]
fn every_problem_of_the_clouds_is_listed() {
    let table: Vec<(&str, Vec<&str>)> = vec![
        (
            "",
            vec![
                "name is missing; add it, such as name = \"ams\"",
                "clouds.primary is missing: a CloudFS needs two clouds; add the section with kind and name",
                "clouds.secondary is missing: a CloudFS needs two clouds; add the section with kind and name",
            ],
        ),
        (
            "name = \"a b\"\n[clouds.primary]\nkind = \"s4\"\nname = \"x\"\nbukket = \"b\"\n[clouds.secondary]\nname = \"x\"\n",
            vec![
                "line 1: name \"a b\" cannot name a filer; use 1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit",
                "line 3: clouds.primary.kind \"s4\" is no choice here; write \"s3\" or \"azure\" or \"gcs\" or \"directory\"",
                "line 6: clouds.secondary.kind is missing; add it, such as kind = \"directory\"",
                "line 7: clouds.secondary.name \"x\" is the name of clouds.primary too (line 4); give each cloud a name of its own",
            ],
        ),
        (
            "name = \"a\"\n[clouds.primary]\nkind = \"s3\"\nname = \"x\"\nbucket = \"files\"\n[clouds.secondary]\nkind = \"azure\"\nname = \"y\"\n",
            vec![
                "line 2: clouds.primary has no credentials; give access_key_id and secret_access_key (or their _env or _file), or machine_role = true",
                "line 6: clouds.secondary has no credentials; give access_key or sas (or their _env or _file), or machine_role = true",
                "line 6: clouds.secondary.account is missing; add it, such as account = \"examplefiles\"",
                "line 6: clouds.secondary.container is missing; add it, such as container = \"files\"",
            ],
        ),
        (
            "name = \"a\"\n[clouds.primary]\nkind = \"s3\"\nname = \"x\"\nbucket = \"b\"\nendpoint = \"http://store:9000/\"\naccess_key_id = \"i\"\n\
             [clouds.secondary]\nkind = \"s3\"\nname = \"y\"\nbucket = \"b\"\nendpoint = \"http://STORE:9000\"\nallow_http = true\naccess_key_id = \"i\"\nsecret_access_key = \"k\"\nsecret_access_key_env = \"K\"\nprefix = \"other\"\n",
            vec![
                "line 7: clouds.primary.secret_access_key is missing beside access_key_id; add it, or its _env or _file",
                "line 6: clouds.primary.endpoint is http://, which anybody on the way can read; use https://, or add allow_http = true",
                "line 11: clouds.secondary.bucket is the same place as clouds.primary (line 5): one failure would take both; name another bucket",
                "line 16: clouds.secondary.secret_access_key_env is one place too many beside secret_access_key (line 15); keep one of them",
            ],
        ),
        (
            "name = \"a\"\ndata_dir = \"d\"\n[clouds.primary]\nkind = \"directory\"\nname = \"b\"\npath = \"c\"\n\
             [clouds.secondary]\nkind = \"gcs\"\nname = \"y\"\nbucket = \"g\"\nanonymous = true\nendpoint = \"https://id:hush@host\"\n",
            vec![
                "line 5: clouds.primary.name \"b\" is how commands and logs call the secondary cloud; choose another name",
                "line 12: clouds.secondary.endpoint holds user:password@; credentials have settings of their own, write the address alone",
            ],
        ),
        (
            "name = \"a\"\ndata_dir = \"d\"\n[clouds.primary]\nkind = \"directory\"\nname = \"x\"\npath = \"c\"\n\
             [clouds.secondary]\nkind = \"directory\"\nname = \"y\"\npath = \"c/sub\"\n",
            vec![
                "line 10: clouds.secondary.path is the same place as clouds.primary (line 6): one failure would take both; name another path",
            ],
        ),
        (
            "name = \"a\"\ndata_dir = \"d\"\n[clouds.primary]\nkind = \"directory\"\nname = \"x\"\npath = \"d/c\"\n\
             [clouds.secondary]\nkind = \"gcs\"\nname = \"y\"\nbucket = \"files\"\nanonymous = true\nmachine_role = true\n",
            vec![
                "line 6: clouds.primary.path and data_dir (line 2) lie one within the other; give the cloud a directory of its own",
                "line 11: clouds.secondary.anonymous contradicts machine_role (line 12); keep one of service_account_path, machine_role and anonymous",
            ],
        ),
    ];
    for (text, expected) in table {
        let mut found = problems(text);
        let mut expected: Vec<String> = expected.into_iter().map(String::from).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "\n{text}");
    }
}

#[test]
fn a_way_to_be_known_that_cannot_be_read_contradicts_no_other() {
    let s3 = "kind = \"s3\"\nbucket = \"example-files\"\naccess_key_id = \"id\"\n";
    let (gcs, azure) =
        ("kind = \"gcs\"\nbucket = \"files\"\n", "kind = \"azure\"\naccount = \"acc\"\ncontainer = \"files\"\n");
    for (cloud, ways, told) in [
        (s3, "secret_access_key = \"k\"\nmachine_role = \"no\"\n", "machine_role"),
        (s3, "machine_role = \"no\"\n", "machine_role"),
        (gcs, "machine_role = true\nanonymous = \"no\"\n", "anonymous"),
        (gcs, "service_account_path = \"s.json\"\nmachine_role = 0\n", "machine_role"),
        (azure, "access_key = \"k\"\nmachine_role = \"no\"\n", "machine_role"),
        (azure, "access_key = 7\nsas = \"s\"\n", "access_key"),
    ] {
        let primary = "[clouds.primary]\nkind = \"directory\"\nname = \"x\"\npath = \"store\"\n";
        let found = problems(&format!("name = \"ams\"\n{primary}[clouds.secondary]\nname = \"y\"\n{cloud}{ways}"));
        assert!(found.len() == 1 && found[0].contains(&format!(".{told} must be ")), "{ways}: {found:?}");
    }
}

/// The providers' own names are judged by their rules, those of other servers by what can be no name at all.
#[test]
fn names_that_no_bucket_can_have_are_refused() {
    let cloud = |place: &str, kind: &str, more: &str| {
        format!("[clouds.{place}]\nname = \"{place}\"\nkind = \"{kind}\"\n{more}machine_role = true\n")
    };
    let judged = |first: &str, second: &str| -> Vec<String> {
        let told = problems(&format!("name = \"ams\"\n{first}{second}"));
        told.iter().map(|told| told.split(';').next().unwrap_or_default().to_string()).collect()
    };
    let azure = |account: &str, container: &str| {
        cloud("secondary", "azure", &format!("account = \"{account}\"\ncontainer = \"{container}\"\n"))
    };
    assert_eq!(
        judged(
            &cloud("primary", "s3", "bucket = \"s3://files/fs\"\n"),
            &azure("https://acc.blob.core.windows.net", "a--b")
        ),
        [
            "line 5: clouds.primary.bucket \"s3://files/fs\" is more than a name",
            "line 10: clouds.secondary.account \"https://acc.blob.core.windows.net\" is the address of a server",
            "line 11: clouds.secondary.container \"a--b\" cannot name a container",
        ]
    );
    let own = "endpoint = \"https://store.example.org\"\nbucket = \"My_Files\"\n";
    assert_eq!(
        judged(&cloud("primary", "s3", "bucket = \"My_Files\"\nregion = \"eu-west-1\"\n"), &azure("Acc", "files")),
        [
            "line 5: clouds.primary.bucket \"My_Files\" cannot name a bucket of AWS",
            "line 11: clouds.secondary.account \"Acc\" cannot name a storage account of Azure",
        ]
    );
    for (more, count) in [
        ("", 0),
        ("region = \"us-east-1\"\n", 0),
        ("region = \"us-east-1\"\nvirtual_hosted = true\n", 1),
        ("region = \"us-west-1\"\n", 1),
    ] {
        let old = cloud("primary", "s3", &format!("bucket = \"My_Files\"\n{more}"));
        assert_eq!(judged(&old, &azure("acc", "files")).len(), count, "{more}");
    }
    assert_eq!(judged(&cloud("primary", "s3", own), &azure("acc", "files")), [""; 0]);
    assert_eq!(
        judged(&cloud("primary", "s3", own), &cloud("secondary", "gcs", "bucket = \"Files\"\n")),
        ["line 11: clouds.secondary.bucket \"Files\" cannot name a bucket of Google"]
    );
    assert_eq!(judged(&cloud("primary", "gcs", own), &azure("acc", "files")), [""; 0]);
    // What is no text, or missing, is told as that alone.
    assert_eq!(
        judged(&cloud("primary", "s3", "bucket = 7\n"), &cloud("secondary", "gcs", "")),
        [
            "line 5: clouds.primary.bucket must be a text in quotes, not a number",
            "line 7: clouds.secondary.bucket is missing",
        ]
    );
}
