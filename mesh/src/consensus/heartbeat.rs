//! The leader's signs of life.
//!
//! One of them is under way to each follower, and a follower whose answer takes longer than the pause between two gets the
//! next as soon as it has answered: slow links make them rarer, and nothing else.

use super::replica::Core;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// Has one sent every `heartbeat_ms`, while this filer leads.
pub async fn send(core: Arc<Core>) {
    let pause = Duration::from_millis(core.settings.heartbeat_ms);
    loop {
        sleep(pause).await;
        if core.look(|metrics| metrics.state.is_leader())
            && let Err(error) = core.raft.trigger().heartbeat().await
        {
            core.engine_ended(&error);
            return;
        }
    }
}
