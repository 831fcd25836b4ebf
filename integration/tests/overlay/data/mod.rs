//! The data plane: networks laid by the core and by entries directly, with no cluster. What a cluster would tell, the stage
//! tells.

mod damage;
mod many;
mod reach;
pub(crate) mod safety;
mod stage;
