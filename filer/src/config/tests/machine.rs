//! What a filer that is to serve needs of its machine: what is not there is told at the setting that names it.

use super::*;

/// What must be there when a filer serves is told beside what is wrong with the file itself.
#[test]
fn what_is_not_on_this_machine_is_told_at_the_setting_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    let told = |text: &str, site: Option<&str>| -> Vec<String> {
        std::fs::write(&path, text).unwrap();
        match Config::load_to_serve(&path, site, false) {
            Ok(_) => vec![],
            Err(ConfigError::Problems { problems, .. }) => problems.iter().map(Problem::to_string).collect(),
            Err(other) => panic!("{other}"),
        }
    };
    let text = "name = \"ams\"\n[clouds.primary]\nkind = \"s3\"\nname = \"aws\"\nbucket = \"example-files\"\nregion = \"eu-west-1\"\n\
        access_key_id_env = \"FILERMESH_NO_ID\"\nsecret_access_key_file = \"no.secret\"\nca_file = \"no.pem\"\nrequest_timeout = 5\n\
        [clouds.secondary]\nkind = \"directory\"\nname = \"disk\"\npath = \"absent\"\n\
        [admin]\nlisten = \"127.0.0.1:7481\"\ntoken_file = \"no.token\"\n";
    let base = dir.path().display();
    let expected = [
        "line 1: name is \"ams\", and the site's certificate is for \"fra\"; a site cannot be renamed: write name = \"fra\"".into(),
        "line 7: clouds.primary.access_key_id_env gives nothing: the environment variable FILERMESH_NO_ID is not set; set it for filer serve, and for filer check-config too".into(),
        format!("line 8: clouds.primary.secret_access_key_file gives nothing: the file {base}/no.secret: "),
        format!("line 9: clouds.primary.ca_file names {base}/no.pem, which cannot be used: "),
        "line 10: clouds.primary.request_timeout the number 5 has no unit; ".into(),
        format!("line 14: clouds.secondary.path names {base}/absent, which cannot be used: "),
        format!("line 17: admin.token_file {base}/no.token: "),
    ];
    let found = told(text, Some("fra"));
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(found.starts_with(expected.as_str()), "{found}\nis not\n{expected}");
    }
    assert_eq!(told(text, None).len(), expected.len() - 1, "any name will do");

    let azure = text.replace(
        "kind = \"directory\"\nname = \"disk\"\npath = \"absent\"\n",
        "kind = \"azure\"\nname = \"azure\"\naccount = \"acc\"\ncontainer = \"files\"\naccess_key = \"aGk=\"\naccess_key_env = \"hush!\"\n",
    );
    let found: Vec<String> = told(&azure, None).into_iter().filter(|told| told.contains("secondary")).collect();
    assert_eq!(
        found,
        [
            "line 17: clouds.secondary.access_key_env is no name of an environment variable, which has letters, digits, '_', '.' and '-'; write the name, and have the variable hold the rest",
            "line 17: clouds.secondary.access_key_env is one place too many beside access_key (line 16); keep one of them",
        ]
    );
}

/// Of a cloud of no known kind nothing is looked for: where it is to be, nobody knows.
#[test]
fn a_cloud_without_its_kind_needs_nothing_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    std::fs::create_dir(dir.path().join("store")).unwrap();
    for primary in [
        "[clouds.primary]\nkind = s3\nname = \"x\"\n",
        "[clouds.primary]\nkind = \"s4\"\nname = \"x\"\n",
        "[clouds.primary]\nname = \"x\"\n",
        "[clouds]\nprimary = 3\n",
    ] {
        let secondary = "[clouds.secondary]\nkind = \"directory\"\nname = \"y\"\npath = \"store\"\n";
        std::fs::write(&path, format!("name = \"ams\"\n{primary}{secondary}")).unwrap();
        let said = Config::load_to_serve(&path, None, false).unwrap_err().to_string();
        assert!(said.contains("has 1 problem:"), "{primary}: {said}");
    }
}

#[test]
fn nothing_that_a_broken_text_names_is_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    std::fs::write(&path, format!("{GOOD}[health\n")).unwrap();
    let said = Config::load_to_serve(&path, Some("fra"), false).unwrap_err().to_string();
    assert!(said.contains("filer.toml has 1 problem:\n  line 11: is no valid TOML here ([health): "), "{said}");
}

/// A mount that is away is a cloud that is out; before the first start it may well be a slip of the pen.
#[test]
fn a_directory_that_is_away_is_no_mistake_of_a_site_that_has_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    std::fs::write(dir.path().join("file"), "").unwrap();
    std::fs::create_dir(dir.path().join("other")).unwrap();
    let problems = |primary: &str, has_served| {
        let clouds = format!(
            "name = \"ams\"\n[clouds.primary]\nkind = \"directory\"\nname = \"x\"\npath = \"{primary}\"\n\
             [clouds.secondary]\nkind = \"directory\"\nname = \"y\"\npath = \"other\"\n"
        );
        std::fs::write(&path, clouds).unwrap();
        match Config::load_to_serve(&path, None, has_served) {
            Ok(_) => 0,
            Err(ConfigError::Problems { problems, .. }) => problems.len(),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!((problems("absent", false), problems("absent", true)), (1, 0));
    assert_eq!((problems("file", false), problems("file", true)), (1, 1), "that is no directory");
}
