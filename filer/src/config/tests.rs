//! Files that are right, and many that are wrong.

use super::*;

mod broken;
mod clouds;
mod machine;
mod places;
mod problems;
mod secrets;
mod socket;
mod written;

const GOOD: &str = "
name = \"ams\"
[clouds.primary]
kind = \"directory\"
name = \"a\"
path = \"clouds/a\"
[clouds.secondary]
kind = \"directory\"
name = \"b\"
path = \"clouds/b\"
";

/// The problems of `text`, one line each.
fn problems(text: &str) -> Vec<String> {
    match Config::parse(text, Path::new("/site/filer.toml")) {
        Ok(_) => vec![],
        Err(ConfigError::Problems { problems, .. }) => problems.iter().map(Problem::to_string).collect(),
        Err(other) => panic!("{other}"),
    }
}

fn parsed(text: &str) -> Config {
    Config::parse(text, Path::new("/site/filer.toml")).unwrap_or_else(|e| panic!("{e}"))
}
