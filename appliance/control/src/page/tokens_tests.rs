//! Tokens are made and taken away on the page, by admins alone, and their text is shown once.

use axum::http::{StatusCode, header};

use super::tests::{ask, context, log_in, text};
use crate::Context;
use crate::auth::Role;

fn key(html: &str) -> String {
    let (_, rest) = html.split_once("name=\"form_key\" value=\"").expect("a form");
    rest.split('"').next().unwrap().to_owned()
}

async fn page(context: &Context, cookie: &str) -> String {
    let response = ask(context, "GET", "/tokens", Some(cookie), "").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    text(response).await
}

/// The text of the token that the page shows.
fn new_token(html: &str) -> String {
    let (_, rest) = html.split_once("shown this once:<br><code>").expect("a new token");
    rest.split('<').next().unwrap().to_owned()
}

async fn opens(context: &Context, token: &str) -> Option<String> {
    let response = ask(context, "POST", "/login", None, &format!("token={token}")).await;
    let cookie = response.headers().get(header::SET_COOKIE)?.to_str().unwrap();
    Some(cookie.split(';').next().unwrap().to_owned())
}

#[tokio::test]
async fn a_token_is_made_shown_once_and_taken_away_on_the_page() {
    let context = context();
    let cookie = log_in(&context).await;
    let form = key(&page(&context, &cookie).await);
    let wanted = format!("form_key={form}&name=anna&role=operator");
    let made = ask(&context, "POST", "/tokens", Some(&cookie), &wanted).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let token = new_token(&text(made).await);
    let hers = opens(&context, &token).await.expect("the token opens the page");
    let again = page(&context, &cookie).await;
    assert!(again.contains("anna") && again.contains("operator") && !again.contains(&token));

    // A name that is taken, and one that is none, are told; nothing is made.
    for (name, words) in [("anna", "called anna already"), ("Anna!", "no name for a token")] {
        let wanted = format!("form_key={form}&name={name}&role=viewer");
        let refused = ask(&context, "POST", "/tokens", Some(&cookie), &wanted).await;
        assert!(refused.status().is_client_error(), "{name}: {}", refused.status());
        let told = text(refused).await;
        assert!(told.contains(words), "{name}: {told}");
    }
    assert_eq!(context.access.list().len(), 2);

    let order = format!("form_key={form}");
    let gone = ask(&context, "POST", "/tokens/anna/revoke", Some(&cookie), &order).await;
    assert_eq!(gone.status(), StatusCode::SEE_OTHER);
    assert!(
        opens(&context, &token).await.is_none(),
        "a revoked token opens the page"
    );
    let out = ask(&context, "GET", "/", Some(&hers), "").await;
    assert_eq!(out.headers()[header::LOCATION], "/login", "her session goes on");
}

#[tokio::test]
async fn tokens_are_for_admins_and_for_forms_of_their_own_session() {
    let context = context();
    let cookie = log_in(&context).await;
    let forged = ask(
        &context,
        "POST",
        "/tokens",
        Some(&cookie),
        "form_key=guess&name=eve&role=admin",
    )
    .await;
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
    let now = rackbar_model::Timestamp(1);
    let (token, _) = context.access.create("otto", Role::Operator, "admin", now).unwrap();
    let otto = opens(&context, &token).await.unwrap();
    let rack = text(ask(&context, "GET", "/", Some(&otto), "").await).await;
    assert!(!rack.contains("href=\"/tokens\""), "he is led where he may not go");
    for (method, path) in [
        ("GET", "/tokens"),
        ("POST", "/tokens"),
        ("POST", "/tokens/admin/revoke"),
    ] {
        let refused = ask(&context, method, path, Some(&otto), "form_key=x&name=eve&role=admin").await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{method} {path}");
    }
    // The configuration's is not revoked here.
    let form = key(&page(&context, &cookie).await);
    let refused = ask(
        &context,
        "POST",
        "/tokens/admin/revoke",
        Some(&cookie),
        &format!("form_key={form}"),
    )
    .await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert_eq!(context.access.list().len(), 2);
}
