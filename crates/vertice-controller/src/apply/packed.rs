//! A field set that waits in a cache, as text: compressed it takes a fiftieth of what it takes as a tree.

use std::{borrow::Cow, io::Read as _};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use flate2::{Compression, bufread::DeflateEncoder, read::DeflateDecoder};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
use serde_json::Value;

/// Makes text of a field set that is a tree.
pub(super) fn pack(fields: &mut FieldsV1) {
    if fields.0.is_string() {
        return;
    }
    let tree = fields.0.to_string();
    let mut packed = Vec::new();
    // Reading from memory cannot fail; were it to, the tree stays.
    if DeflateEncoder::new(tree.as_bytes(), Compression::fast()).read_to_end(&mut packed).is_ok() {
        fields.0 = Value::String(STANDARD_NO_PAD.encode(packed));
    }
}

/// A field set as a tree, packed or not. Text that is none of ours owns nothing.
pub(super) fn unpacked(fields: &FieldsV1) -> Cow<'_, Value> {
    match &fields.0 {
        Value::String(text) => Cow::Owned(tree(text).unwrap_or_default()),
        tree => Cow::Borrowed(tree),
    }
}

fn tree(text: &str) -> Option<Value> {
    let packed = STANDARD_NO_PAD.decode(text).ok()?;
    serde_json::from_reader(DeflateDecoder::new(&packed[..])).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_is_small() {
        let names = (0..100).map(|number| (format!("f:field-{number}"), json!({})));
        let tree = json!({"f:spec": names.collect::<serde_json::Map<_, _>>()});
        let mut fields = FieldsV1(tree.clone());
        pack(&mut fields);
        let once = fields.clone();
        pack(&mut fields);
        assert_eq!(fields, once, "what is packed is not packed again");
        assert!(fields.0.as_str().unwrap().len() * 2 < tree.to_string().len());
        assert_eq!(*unpacked(&fields), tree);
    }

    #[test]
    fn a_tree_is_read_as_it_is_and_other_text_owns_nothing() {
        let fields = FieldsV1(json!({"f:data": {}}));
        assert!(matches!(unpacked(&fields), Cow::Borrowed(tree) if *tree == fields.0));
        for text in ["", "!", "e30"] {
            assert_eq!(*unpacked(&FieldsV1(json!(text))), Value::Null, "{text}");
        }
    }
}
