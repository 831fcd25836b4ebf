//! What an engine tells of an attachment after it was made: where it took the container's end.

use std::path::Path;

use berth_store::AttachmentState;
use berth_types::AttachmentKey;

use crate::attach::payload;
use crate::attachment::AttachmentRecord;
use crate::berth::{Berth, parsed};
use crate::error::CoreError;
use crate::published::Held;

impl Berth {
    /// Remembers the sandbox that the engine takes, or has given back with an empty path, the container's end to. The
    /// record as it is now; `None` where there is none.
    pub fn note_sandbox(
        &mut self,
        key: &AttachmentKey,
        path: &Path,
    ) -> Result<Option<AttachmentRecord>, CoreError> {
        let _attachment = self.attachment_lock(key)?;
        self.store_mut().write(|tx| {
            let Some(row) = tx.attachment(key)? else { return Ok(None) };
            let Held::Bridge(mut record) = parsed::<Held>(&row.key, &row.payload)? else { return Ok(None) };
            if row.state != AttachmentState::Ready {
                return Ok(None);
            }
            if record.sandbox_path != path {
                record.sandbox_path = path.to_owned();
                tx.attachment_ready(key, &payload(&Held::Bridge(record.clone()))?)?;
            }
            Ok(Some(*record))
        })
    }
}
