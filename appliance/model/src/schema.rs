//! OpenAPI schemas of the types that are written as text.

use alloc::borrow::Cow;
use alloc::string::String;

use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::{Digest, MacAddr, NodeId, Timestamp};

macro_rules! text {
    ($type:ident, $format:expr, $example:literal, $description:literal) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .format(Some($format))
                    .description(Some($description))
                    .examples([String::from($example)])
                    .build()
                    .into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }
        }
    };
}

text!(
    MacAddr,
    SchemaFormat::Custom("mac".into()),
    "52:54:00:12:34:56",
    "A MAC address."
);
text!(
    NodeId,
    SchemaFormat::Custom("uuid".into()),
    "018f3b1c-2d4e-7a5b-8c6d-9e0f1a2b3c4d",
    "A node's id."
);
text!(
    Timestamp,
    SchemaFormat::KnownFormat(KnownFormat::DateTime),
    "2026-11-20T17:24:28.123Z",
    "A time, UTC."
);
text!(
    Digest,
    SchemaFormat::Custom("sha256".into()),
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "A SHA-256 digest."
);
