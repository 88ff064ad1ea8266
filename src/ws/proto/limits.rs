//! How much of a message this endpoint takes.

/// What a message may cost, checked before anything is allocated for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::struct_field_names, reason = "named as the options that set them")]
pub(crate) struct Limits {
    /// Largest message, in bytes: the sum of its frames. Default 1 MiB; beyond it, close code 1009.
    pub(crate) max_message_size: usize,
    /// Largest frame, in bytes. Default: no limit but that of the message; beyond it, 1009.
    pub(crate) max_frame_size: usize,
    /// Most frames a message may come in. Default 1 024; beyond it, 1008.
    pub(crate) max_fragments: usize,
}

impl Limits {
    /// Largest compressed message, in bytes: what does not compress may grow by an eighth.
    pub(crate) fn max_deflated_size(&self) -> usize {
        self.max_message_size.saturating_add(self.max_message_size / 8).saturating_add(64)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message_size: 1 << 20, max_frame_size: usize::MAX, max_fragments: 1024 }
    }
}
