//! One kept state by itself: what a snapshot keeps, and what that needs.

use super::blobs::Part;
use super::{Check, CheckOptions};
use crate::crypto::RootSecret;
use crate::engine::keyring::Header;
use crate::{Error, Result};

impl Check<'_> {
    /// The header, without which nothing opens; the tree of the snapshot; its chunks, and the blocks of both.
    pub(super) async fn look_at(
        &mut self,
        name: &str,
        header: &Header,
        secret: &RootSecret,
        options: &CheckOptions<'_>,
    ) -> Result<()> {
        let row = match self.shared.snapshot_row(&self.root, name).await? {
            Some(row) if !row.is_removed => row,
            _ => return Err(Error::NoSnapshot { name: name.to_owned() }),
        };
        self.headers(header, secret).await?;
        self.only_snapshot(name, &row, options.rows).await?;
        self.blobs_met(Part::of(options)).await?;
        self.name_chunks().await;
        self.kept.name_hurt(&mut self.report);
        Ok(())
    }
}
