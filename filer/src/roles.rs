//! Today's roles, for whoever must look at them before each step.

use std::sync::{Arc, RwLock};
use storage::{
    cloudfs::{CloudState, Roles},
    ids::CloudId,
};

/// The roles as this filer's replica has them. A clone is another handle.
#[derive(Clone, Default)]
pub struct CurrentRoles(Arc<RwLock<Option<Roles>>>);

impl CurrentRoles {
    /// The roles; `None` before the first are known.
    pub fn get(&self) -> Option<Roles> {
        self.0.read().expect("no holder of the roles panics").clone()
    }

    /// Replaces them; tells whether they are new.
    pub fn set(&self, roles: Roles) -> bool {
        let mut current = self.0.write().expect("no holder of the roles panics");
        let new = current.as_ref() != Some(&roles);
        *current = Some(roles);
        new
    }

    /// The state of one cloud.
    pub fn state(&self, cloud: CloudId) -> Option<CloudState> {
        self.0.read().expect("no holder of the roles panics").as_ref().map(|roles| roles.cloud(cloud).state)
    }
}
