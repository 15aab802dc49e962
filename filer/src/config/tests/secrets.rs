//! Secrets: which settings hold one, and that none is shown, written or repeated in a problem.

use super::*;

#[test]
fn settings_that_hold_a_secret_are_known_by_name() {
    for key in [
        "secret_access_key",
        "access_key",
        "session_token",
        "sas",
        "secret",
        "sig",
        "key",
        "X-Amz-Signature",
        "accountKey",
    ] {
        assert!(holds_secret(key), "{key}");
    }
    for key in [
        "access_key_id",
        "access_key_id_env",
        "secret_access_key_env",
        "sas_file",
        "service_account_path",
        "token_file",
        "unsigned_payload",
        "keep_alive",
        "region",
        "",
    ] {
        assert!(!holds_secret(key), "{key}");
    }
}

#[test]
fn secrets_stay_at_home() {
    let text = "name = \"ams\"\n[clouds.primary]\nkind = \"s3\"\nname = \"aws\"\nbucket = \"files\"\naccess_key_id = \"id\"\nsecret_access_key = \"hush\"\n\
        [clouds.secondary]\nkind = \"azure\"\nname = \"azure\"\naccount = \"acc\"\ncontainer = \"files\"\nsas = \"hush\"\n";
    let mut config = parsed(text);
    assert!(!format!("{config:?}").contains("hush"));
    config.clouds.primary = config.clouds.primary.without_secrets();
    config.clouds.secondary = config.clouds.secondary.without_secrets();
    assert!(!config.to_toml(Path::new("/site")).contains("hush"));
}

#[test]
fn a_key_in_an_endpoint_is_not_repeated() {
    for endpoint in [
        "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=hush==",
        "BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature=sv=2024&sig=hush",
        "https://acc.blob.core.windows.net/;AccountKey=hush",
        "https://acc.blob.core.windows.net/files?sig=hush",
        "https://id:hush@store.example.org",
        "id:hush@store.example.org",
    ] {
        let cloud = "[clouds.secondary]\nkind = \"s3\"\nname = \"y\"\nbucket = \"files\"\nmachine_role = true\n";
        let primary = "[clouds.primary]\nkind = \"directory\"\nname = \"x\"\npath = \"store\"\n";
        let found = problems(&format!("name = \"ams\"\n{primary}{cloud}endpoint = \"{endpoint}\"\n"));
        assert!(found.len() == 1 && found[0].ends_with(" write the address alone"), "{found:?}");
        assert!(!found[0].contains("hush"), "{found:?}");
    }
}
