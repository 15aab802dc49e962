//! Where things lie: relative paths start at the file, and one place is noticed under all of its names.

use super::*;
use storage::clouds::CloudSettings;

#[test]
fn relative_paths_start_at_the_file() {
    let config = parsed(GOOD);
    assert_eq!(config.data_dir, Path::new("/site/data"));
    assert_eq!(config.admin.socket, Path::new("/site/admin.sock"));
    let CloudSettings::Directory(primary) = &config.clouds.primary.settings else { panic!("a directory") };
    assert_eq!(primary.path, Path::new("/site/clouds/a"));
}

#[test]
fn one_bucket_is_noticed_at_all_of_its_addresses() {
    let s3 = |bucket: &str, endpoint: &str| {
        format!(
            "kind = \"s3\"\nbucket = \"{bucket}\"\nendpoint = \"{endpoint}\"\nallow_http = true\naccess_key_id = \"i\"\nsecret_access_key = \"k\"\n"
        )
    };
    let gcs = "kind = \"gcs\"\nbucket = \"example-files\"\nmachine_role = true\n".to_string();
    let aws = "kind = \"s3\"\nbucket = \"example-files\"\nmachine_role = true\n".to_string();
    let gov = format!("{aws}region = \"us-gov-west-1\"\n");
    let judged = |first: &str, second: &str| {
        let text = format!(
            "name = \"ams\"\n[clouds.primary]\nname = \"x\"\n{first}[clouds.secondary]\nname = \"y\"\n{second}"
        );
        problems(&text)
            .iter()
            .filter(|problem| problem.contains("is the same place as clouds.primary (line 5)"))
            .count()
    };
    let same = "example-files";
    for (first, second, expected) in [
        (&aws, &s3(same, "https://s3.eu-west-1.amazonaws.com"), 1),
        (&aws, &s3("others", "https://s3.eu-west-1.amazonaws.com"), 0),
        (&aws, &s3(same, "https://s3.us-gov-west-1.amazonaws.com"), 0),
        (&aws, &s3(same, "https://s3-fips-us-gov-west-1.amazonaws.com"), 0),
        (&aws, &gov, 0),
        (&gov, &s3(same, "https://s3.us-gov-east-1.amazonaws.com"), 1),
        (&aws, &gcs, 0),
        (&gcs, &s3(same, "https://storage.googleapis.com:443/"), 1),
        (&s3(same, "http://Store.example.org"), &s3(same, "https://store.example.org/"), 1),
        (&s3(same, "http://store:9000"), &s3(same, "http://store:9001"), 0),
        (&s3(same, "http://ec2-1.amazonaws.com"), &s3(same, "http://ec2-2.amazonaws.com"), 0),
    ] {
        assert_eq!(judged(first, second), expected, "{first}\n{second}");
    }
}

#[test]
fn one_directory_under_two_names_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    std::fs::create_dir_all(at("a/deep")).unwrap();
    std::fs::create_dir(at("b")).unwrap();
    std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
    let judged = |first: &str, second: &str| {
        let text = format!(
            "name = \"x\"\n[clouds.primary]\nkind = \"directory\"\nname = \"a\"\npath = \"{first}\"\n\
             [clouds.secondary]\nkind = \"directory\"\nname = \"b\"\npath = \"{second}\"\n"
        );
        Config::parse(&text, &at("filer.toml")).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(judged("a", "b"), Ok(()));
    assert_eq!(judged("a", "later/there"), Ok(()));
    for (first, second) in [
        ("a", "link"),
        ("a", "b/../a"),
        ("link/deep", "a"),
        ("a", "link/new"),
        ("new", "b/../new/."),
        ("a/deep", "link/deep/more"),
    ] {
        let said = judged(first, second).expect_err(second);
        assert!(said.contains("is the same place as clouds.primary"), "{first} {second}: {said}");
    }
    let data = "name = \"x\"\ndata_dir = \"link/data\"\n[clouds.primary]\nkind = \"directory\"\nname = \"a\"\npath = \"a\"\n\
         [clouds.secondary]\nkind = \"directory\"\nname = \"b\"\npath = \"b\"\n";
    let said = Config::parse(data, &at("filer.toml")).unwrap_err().to_string();
    assert!(said.contains("lie one within the other"), "{said}");
}
