//! What operators ask for.

use crate::{recording::Lane, world::World};
use filer::actors::mesh::Decide;
use mesh::FilerId;
use std::rc::Rc;
use storage::{
    cloudfs::{BY_OPERATOR, OpBody},
    ids::CloudId,
};

/// An operator at a site wants the other cloud active, or the preferred one `back`.
pub async fn operate(world: &Rc<World>, at: FilerId, back: bool) {
    let Some(roles) = world.filer(at).and_then(|filer| filer.roles.get()) else {
        return;
    };
    let to: CloudId = if back { roles.preferred } else { roles.standby() };
    let body = OpBody::Activate { to, epoch: roles.epoch, by: BY_OPERATOR.into() };
    match world.call(at, async move |filer| filer.actors.mesh.send(Decide(body)).await).await {
        Ok(Ok(Ok(_))) if back => world.coverage.hit("operator failbacks"),
        Ok(Ok(Ok(_))) => {}
        _ => {
            world.coverage.hit("operator refusals");
            world.recording.mark(
                Lane::World,
                world.trace.now_ms(),
                format!("an operator's wish at filer {at} is refused"),
            );
        }
    }
}
