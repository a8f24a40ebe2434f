//! Stories of tokens and sessions: who is let in, and for how long.

use std::sync::Arc;

use super::*;
use axum::http::HeaderValue;

fn access() -> Access {
    Access::new(vec![Token {
        name: "admin".into(),
        sha256: sha256("secret"),
        role: Role::Admin,
    }])
}

impl Access {
    /// Who sends a request with these headers.
    fn identify(&self, headers: &HeaderMap) -> Option<Holder> {
        self.holder(self.pass(headers)?)
    }
}

fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
}

#[test]
fn a_bearer_token_identifies_its_holder_and_another_does_not() {
    let access = access();
    assert_eq!(
        access
            .identify(&headers(header::AUTHORIZATION, "Bearer secret"))
            .map(|holder| holder.name)
            .as_deref(),
        Some("admin")
    );
    for wrong in ["Bearer Secret", "Bearer ", "Basic secret", "secret"] {
        assert_eq!(access.identify(&headers(header::AUTHORIZATION, wrong)), None, "{wrong}");
    }
    assert_eq!(access.identify(&HeaderMap::new()), None);
}

#[test]
fn a_session_lasts_from_log_in_to_log_out() {
    let access = access();
    assert_eq!(access.log_in("wrong"), None);
    let cookie = access.log_in("secret").unwrap();
    for flag in ["HttpOnly", "Secure", "SameSite=Strict"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    let sent = headers(
        header::COOKIE,
        &format!("other=1; {}", cookie.split(';').next().unwrap()),
    );
    let holder = access.identify(&sent).unwrap();
    assert_eq!((holder.name.as_str(), holder.role), ("admin", Role::Admin));
    assert!(form_key(&sent).is_some());
    access.log_out(&sent);
    assert_eq!(access.identify(&sent), None);
}

#[test]
fn a_token_that_is_taken_away_ends_its_sessions() {
    let access = access();
    let cookie = access.log_in("secret").unwrap();
    let sent = headers(header::COOKIE, cookie.split(';').next().unwrap());
    access.set_tokens(Vec::new());
    assert_eq!(access.identify(&sent), None);
}

#[test]
fn sessions_are_bounded() {
    let access = access();
    let first = access.log_in("secret").unwrap();
    for _ in 0..MAX_SESSIONS {
        access.log_in("secret").unwrap();
    }
    assert_eq!(lock(&access.sessions).len(), MAX_SESSIONS);
    assert_eq!(
        access.identify(&headers(header::COOKIE, first.split(';').next().unwrap())),
        None
    );
}

#[test]
fn a_made_token_works_until_it_is_revoked_and_survives_a_restart() {
    let store = Store::in_memory(Default::default()).unwrap();
    let access = Access::open(store.clone()).unwrap();
    let (text, entry) = access
        .create("anna", Role::Viewer, "admin", Timestamp::default())
        .unwrap();
    assert_eq!((entry.role, entry.by.as_str()), (Role::Viewer, "admin"));
    assert!(matches!(
        access.create("anna", Role::Admin, "admin", Timestamp::default()),
        Err(TokenError::Taken(_))
    ));
    for bad in ["", "Anna", "a b", "1a", "admin", "console", &"a".repeat(65)] {
        assert!(
            access.create(bad, Role::Viewer, "admin", Timestamp::default()).is_err(),
            "{bad}"
        );
    }
    let secrets = store.list(Table::Secrets).unwrap();
    assert!(
        secrets
            .iter()
            .all(|(_, value)| !String::from_utf8_lossy(value).contains(&text)),
        "the text of a token lies in the store"
    );

    let again = Access::open(store.clone()).unwrap();
    let sent = headers(header::AUTHORIZATION, &format!("Bearer {text}"));
    let holder = again.identify(&sent).unwrap();
    assert_eq!((holder.name.as_str(), holder.role), ("anna", Role::Viewer));
    let cookie = again.log_in(&text).unwrap();
    let session = headers(header::COOKIE, cookie.split(';').next().unwrap());
    assert_eq!(again.identify(&session).unwrap().role, Role::Viewer);
    again.revoke("anna").unwrap();
    assert_eq!(again.identify(&sent), None);
    assert_eq!(again.identify(&session), None);
    assert!(matches!(again.revoke("anna"), Err(TokenError::Unknown(_))));
    assert!(Access::open(store).unwrap().list().is_empty());
}

#[test]
fn another_text_of_the_admin_token_ends_the_sessions_of_the_former() {
    let access = access();
    let session = |cookie: &str| headers(header::COOKIE, cookie.split(';').next().unwrap());
    let former = session(&access.log_in("secret").unwrap());
    let of_admin = |text: &str| Token {
        name: "admin".into(),
        sha256: sha256(text),
        role: Role::Admin,
    };
    access.set_tokens(vec![of_admin("secret")]);
    assert!(
        access.identify(&former).is_some(),
        "the same token again changes nothing"
    );
    access.set_tokens(vec![of_admin("another")]);
    assert_eq!(access.identify(&former), None);
    let latter = session(&access.log_in("another").unwrap());
    assert_eq!(access.identify(&latter).unwrap().role, Role::Admin);
    // A made token of a name that was another's before is not that one either.
    let made = Access::open(Store::in_memory(Default::default()).unwrap()).unwrap();
    let make = || {
        made.create("anna", Role::Admin, "admin", Timestamp::default())
            .unwrap()
            .0
    };
    let first = session(&made.log_in(&make()).unwrap());
    made.revoke("anna").unwrap();
    make();
    assert_eq!(made.identify(&first), None);
}

#[tokio::test]
async fn whoever_was_let_in_is_told_of_when_that_ends() {
    let access = Arc::new(access());
    let bearer = access.pass(&headers(header::AUTHORIZATION, "Bearer secret")).unwrap();
    let cookie = access.log_in("secret").unwrap();
    let sent = headers(header::COOKIE, cookie.split(';').next().unwrap());
    let session = access.pass(&sent).unwrap();
    let (of_token, of_session) = (
        tokio::spawn(access.clone().end_of(bearer)),
        tokio::spawn(access.clone().end_of(session)),
    );
    tokio::task::yield_now().await;
    access.log_out(&sent);
    // Below the time after which it is looked again anyway.
    let soon = Duration::from_secs(10);
    tokio::time::timeout(soon, of_session).await.unwrap().unwrap();
    assert!(!of_token.is_finished(), "the token is still good");
    access.set_tokens(Vec::new());
    tokio::time::timeout(soon, of_token).await.unwrap().unwrap();
}
