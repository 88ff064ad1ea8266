//! What a connection is watched for.
//!
//! | file | shows |
//! | --- | --- |
//! | `stats` | what is counted |

mod stats;
