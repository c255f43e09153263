//! The `continue` of a list: any text a client may send, and tokens of ours that were tampered with.
//!
//! An even first byte: the rest is the token. An odd one: the rest is the JSON inside of it.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use skiff_api::verbs::continue_token::ContinueToken;

fuzz_target!(|data: &[u8]| {
    let [how, rest @ ..] = data else { return };
    let text = if how & 1 == 0 { String::from_utf8_lossy(rest).into_owned() } else { URL_SAFE_NO_PAD.encode(rest) };
    match ContinueToken::decode(&text) {
        Ok(token) => accepted(&token),
        Err(refused) => {
            assert_eq!(refused.code.as_u16(), 400, "{}", refused.message);
            assert!(refused.message.starts_with("continue key is not valid: "), "{}", refused.message);
        }
    }
    ours(rest);
});

fn accepted(token: &ContinueToken) {
    assert_eq!(ContinueToken::decode(&token.encode()).as_ref().ok(), Some(token), "written and read");
    assert_ne!(token.revision(), 0);
    assert!(!token.after().split(|byte| *byte == b'/').any(|part| part == b".."), "leads out of its collection");
    let current = token.inconsistent();
    assert_eq!((current.revision(), current.after()), (-1, token.after()));
}

/// A token of ours for any key comes back as it was, and not at all once its text was cut.
fn ours(key: &[u8]) {
    let Ok(key) = std::str::from_utf8(key) else { return };
    if key.split('/').any(|part| part == "..") || key.ends_with('\0') {
        return; // no object has such a key
    }
    let token = ContinueToken::new(7, key.as_bytes());
    let text = token.encode();
    match ContinueToken::decode(&text) {
        Ok(again) => assert_eq!((again.revision(), again.after()), (7, key.as_bytes())),
        Err(error) => panic!("a token of ours is refused: {}: {key:?}", error.message),
    }
    assert!(ContinueToken::decode(&text[1..]).is_err(), "without its first letter");
    assert!(ContinueToken::decode(&text[..text.len() - 1]).is_err(), "without its last letter");
}
