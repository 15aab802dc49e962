//! What must hold in every run, one invariant per file, each with why it matters.

mod agreed_time;
mod clouds_equal;
mod consistent;
mod counted_once;
mod held;
pub mod names;
mod one_active;
mod probes_only;
mod progress;
mod reads;
mod replicas_alike;
mod right_puts;
mod tree;
mod within_bounds;

pub use agreed_time::agreed_time;
pub use clouds_equal::{each_cloud_rebuilds, listed_alike};
pub use consistent::active_is_consistent;
pub use counted_once::{AttemptId, CountedOnce, Ended, SLOW};
pub use held::released_is_held;
pub use one_active::{OneActive, tripped_in_time};
pub use probes_only::ProbesOnly;
pub use progress::{WELL_MAX, answered_in_time, comes_about};
pub use reads::{FileHistory, Opened};
pub use replicas_alike::replicas_alike;
pub use right_puts::right_put;
pub use tree::tree_is_a_tree;
pub use within_bounds::within_bounds;
