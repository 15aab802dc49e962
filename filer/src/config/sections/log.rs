//! `[log]`: what is logged, and how its lines look.

use crate::config::{
    form::Form,
    kinds::{Choice, Text, text},
};
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::LevelFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// `[log]`: to the standard error output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// As `tracing_subscriber::EnvFilter` reads it.
    pub filter: String,
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info,openraft=error".into(), format: LogFormat::Text }
    }
}

impl LogSettings {
    pub(in crate::config) fn form(&mut self, form: &mut Form<'_, '_>) {
        let doc =
            "How much is logged: error, warn, info, debug or trace; also for one part, such as \"info,storage=debug\".";
        let filter = Text(|filter| {
            let parsed = tracing_subscriber::EnvFilter::try_new(filter).map(drop);
            // A misspelt level would be taken for a part of the program, and silence all others.
            let no_level = |word: &&str| !word.contains(['=', '[']) && word.parse::<LevelFilter>().is_err();
            let words: Vec<String> =
                filter.split(',').map(str::trim).filter(no_level).map(|word| format!("\"{word}\"")).collect();
            let misspelt = match &words[..] {
                [] => Ok(()),
                [word] => Err(format!("{word} is no level; write error, warn, info, debug or trace, or PART=LEVEL")),
                _ => Err(format!(
                    "{} are no levels; write error, warn, info, debug or trace, or PART=LEVEL",
                    words.join(" and ")
                )),
            };
            text().0(filter)
                .and(misspelt)
                .and(parsed.map_err(|e| format!("\"{filter}\" is no log filter ({e}); write such as \"info\"")))
        });
        form.set("filter", doc, filter, &mut self.filter);
        let formats = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        form.set("format", "\"text\" for people or \"json\" for machines.", formats, &mut self.format);
    }
}
