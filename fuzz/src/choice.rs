//! Frames, limits and splits, chosen by the bytes of an input.

use arbitrary::{Result, Unstructured};
use tidewire::WebSocketOptions;
use tidewire::deflate::DeflateOptions;
use tidewire::frame::Role;

use crate::oracle::Limits;
use crate::stream::Splits;
use crate::wire::RawFrame;

pub fn role(choice: &mut Unstructured<'_>) -> Result<Role> {
    Ok(if choice.arbitrary()? { Role::Server } else { Role::Client })
}

/// Up to eight sizes.
pub fn splits(choice: &mut Unstructured<'_>) -> Result<Splits> {
    let count = choice.int_in_range(0..=8)?;
    Ok(Splits::new(choice.bytes(count)?))
}

pub fn limits(choice: &mut Unstructured<'_>) -> Result<Limits> {
    Ok(Limits {
        message: *choice.choose(&[0, 10, 200, 70_000, 1 << 20])?,
        frame: *choice.choose(&[0, 10, 200, 70_000, usize::MAX])?,
        fragments: *choice.choose(&[1, 2, 5, 1024])?,
    })
}

/// These options, perhaps with compression that was agreed on, at level 1; true with context takeover.
pub fn deflate(
    choice: &mut Unstructured<'_>,
    options: WebSocketOptions,
) -> Result<(WebSocketOptions, bool)> {
    let (deflates, takeover): (bool, bool) = (choice.arbitrary()?, choice.arbitrary()?);
    if !deflates {
        return Ok((options, false));
    }
    let agreed = if takeover { "" } else { "; server_no_context_takeover" };
    let agreed = format!("permessage-deflate{agreed}").parse().unwrap();
    let deflate = DeflateOptions::default().level(1).threshold(*choice.choose(&[0, 100])?);
    Ok((options.deflate(deflate).agreed_deflate(agreed), takeover))
}

/// Frames to the end of the input, nearly all of them right, and sometimes bytes that are none.
pub fn wire(choice: &mut Unstructured<'_>, to: Role) -> Result<Vec<u8>> {
    let mut wire = Vec::new();
    let mut is_inside = false;
    while !choice.is_empty() {
        let kind: u8 = choice.arbitrary()?;
        if kind >= 0xf8 {
            let count = choice.int_in_range(1..=15)?;
            wire.extend(choice.bytes(count.min(choice.len()))?);
            continue;
        }
        frame(choice, kind, to, &mut is_inside)?.encode(&mut wire);
    }
    Ok(wire)
}

fn frame(
    choice: &mut Unstructured<'_>,
    kind: u8,
    to: Role,
    is_inside: &mut bool,
) -> Result<RawFrame> {
    let mask = (to == Role::Server).then_some(choice.arbitrary()?);
    let payload = payload(choice)?;
    let (opcode, fin) = match kind & 7 {
        0..=4 => {
            let opcode = if *is_inside { 0 } else { 1 + (kind >> 3 & 1) };
            *is_inside = kind & 0x40 != 0;
            (opcode, !*is_inside)
        }
        5 => (9, true),
        6 => (10, true),
        _ => (8, true),
    };
    let mut frame = RawFrame::new(fin, opcode, mask, &payload);
    if kind & 0xb0 == 0xb0 {
        // One thing is wrong, or unusual.
        match choice.int_in_range(0..=6)? {
            0 => frame.opcode = choice.arbitrary()?,
            1 => frame.fin = !frame.fin,
            2 => frame.rsv = choice.arbitrary()?,
            3 => frame.mask = if frame.mask.is_some() { None } else { Some([1, 2, 3, 4]) },
            4 => frame.len_bytes = 2,
            5 => frame.len_bytes = 8,
            _ => frame.payload.extend([0xed, 0xa0, 0x80]),
        }
    }
    Ok(frame)
}

/// Bytes of the input as they are, text, a close code with a reason, or a run of one byte.
fn payload(choice: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let kind: u8 = choice.arbitrary()?;
    let len = match kind >> 5 {
        0..=4 => usize::from(kind & 0x1f),
        5 => 100 + usize::from(kind & 0x1f),
        6 => usize::from(choice.arbitrary::<u8>()?) * 5,
        _ if kind & 0x1c == 0 => *choice.choose(&[65_535, 65_536, 69_000])?,
        _ => *choice.choose(&[125, 126, 127, 200])?,
    };
    Ok(match kind & 3 {
        0 | 1 => {
            let available = len.min(choice.len());
            choice.bytes(available)?.to_vec()
        }
        2 => "aé€😀".bytes().cycle().take(len).collect(),
        _ => {
            let code = close_code(choice)?.to_be_bytes();
            // An odd length cuts the reason inside a character.
            let len = if kind & 0x10 == 0 { len & !1 } else { len };
            code.into_iter().chain("é".bytes().cycle()).take(len).collect()
        }
    })
}

/// Each code near those of the RFC, and those where the others change their meaning.
fn close_code(choice: &mut Unstructured<'_>) -> Result<u16> {
    const OTHERS: [u16; 8] = [0, 2999, 3000, 3999, 4000, 4999, 5000, u16::MAX];
    Ok(match choice.int_in_range(0..=9)? {
        0 => *choice.choose(&OTHERS)?,
        _ => choice.int_in_range(998..=1017)?,
    })
}
