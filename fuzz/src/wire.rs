//! Frames, written without the crate's own code (RFC 6455 §5.2).

/// A frame, right or wrong.
#[derive(Clone, Debug)]
pub struct RawFrame {
    pub fin: bool,
    /// The three reserved bits.
    pub rsv: u8,
    /// Four bits.
    pub opcode: u8,
    pub mask: Option<[u8; 4]>,
    /// Bytes of the length: 0 for seven bits, 2 or 8. Fewer than needed become as many as needed.
    pub len_bytes: u8,
    pub payload: Vec<u8>,
}

impl RawFrame {
    pub fn new(fin: bool, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Self {
        Self { fin, rsv: 0, opcode, mask, len_bytes: 0, payload: payload.to_vec() }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.fin) << 7 | (self.rsv & 7) << 4 | self.opcode & 15);
        let mask = u8::from(self.mask.is_some()) << 7;
        let len = self.payload.len();
        let needed = [(126, 0), (1 << 16, 2)].into_iter().find(|(end, _)| len < *end);
        match self.len_bytes.max(needed.map_or(8, |(_, bytes)| bytes)) {
            0 => out.push(mask | len as u8),
            1 | 2 => {
                out.push(mask | 126);
                out.extend((len as u16).to_be_bytes());
            }
            _ => {
                out.push(mask | 127);
                out.extend((len as u64).to_be_bytes());
            }
        }
        let key = self.mask.unwrap_or_default();
        out.extend(self.mask.iter().flatten());
        out.extend(masked(key, &self.payload));
    }
}

pub fn masked(key: [u8; 4], payload: &[u8]) -> impl Iterator<Item = u8> {
    payload.iter().zip(key.into_iter().cycle()).map(|(byte, key)| byte ^ key)
}
