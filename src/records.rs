//! Log records: the one macro that writes them, and the values that they may show.
//!
//! [`record!`] contains the panics of a logger, which is code of the application. Its message is a literal, and shown as it
//! is. All else stands in fields, whose types are [`Field`]s: numbers, times, addresses, names of ours, and
//! [`Escaped`] text. `String` and `&str` are none, so no foreign text comes into a record unescaped.
//!
//! The target of a record is its module. Where the application has no subscriber of `tracing`, the record goes to the
//! logger of `log`, with the fields behind the message: `name=value`. A field that may hold spaces comes last.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use tracing::Value;
use tracing::field::{DebugValue, DisplayValue, debug, display};

use crate::escaped::{Escaped, EscapedText};

/// Writes a record: `record!(debug, "connection failed", peer = addr, error = Escaped(error))`. A field that is `None` is
/// left out.
///
/// No lock of this crate may be held: the logger may call it.
macro_rules! record {
    ($level:ident, $message:literal $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::foreign::tell(|| {
            ::tracing::$level!(
                message = $message
                $(, $name = $crate::records::Field::value(&$value))*
            );
        })
    };
    (target: $target:literal, $level:ident, $message:literal $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::foreign::tell(|| {
            ::tracing::$level!(
                target: $target,
                message = $message
                $(, $name = $crate::records::Field::value(&$value))*
            );
        })
    };
}

pub(crate) use record;

/// A value that a record may show.
pub(crate) trait Field {
    type Value<'a>: Value
    where
        Self: 'a;

    fn value(&self) -> Self::Value<'_>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Field for $number {
            type Value<'a> = $number;

            fn value(&self) -> $number {
                *self
            }
        }
    )*};
}

numbers!(u16, u64, usize, bool);

/// A name of ours, or a text of the program itself.
impl Field for &'static str {
    type Value<'a> = DisplayValue<Self>;

    fn value(&self) -> DisplayValue<Self> {
        display(*self)
    }
}

impl Field for SocketAddr {
    type Value<'a> = DisplayValue<Self>;

    fn value(&self) -> DisplayValue<Self> {
        display(*self)
    }
}

impl Field for Duration {
    type Value<'a> = DebugValue<Self>;

    fn value(&self) -> DebugValue<Self> {
        debug(*self)
    }
}

impl<T: Display> Field for Escaped<T> {
    type Value<'a>
        = DisplayValue<&'a Self>
    where
        T: 'a;

    fn value(&self) -> DisplayValue<&Self> {
        display(self)
    }
}

impl Field for EscapedText {
    type Value<'a> = DisplayValue<&'a Self>;

    fn value(&self) -> DisplayValue<&Self> {
        display(self)
    }
}

impl<T: Field> Field for Option<T> {
    type Value<'a>
        = Option<T::Value<'a>>
    where
        T: 'a;

    fn value(&self) -> Option<T::Value<'_>> {
        self.as_ref().map(Field::value)
    }
}
