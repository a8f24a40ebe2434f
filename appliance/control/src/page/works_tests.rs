//! Site, plan, consent and run on the page, as a browser without JavaScript works them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use rackbar_model::EventKind;

use super::fake::{HOSTILE, Office};
use super::tests::{ask, context, log_in, text, with_node};
use crate::{Context, Role, Token};

async fn office() -> (Context, Arc<Office>, String) {
    let office = Arc::new(Office::default());
    let context = Context {
        operations: office.clone(),
        ..context()
    };
    let name = with_node(&context).await;
    let id = context.rack.node(&name).unwrap().id;
    *office.node.lock().unwrap() = Some((id, name.clone()));
    (context, office, name)
}

/// The hidden value that forms of this session carry.
async fn form_key(context: &Context, cookie: &str) -> String {
    let html = text(ask(context, "GET", "/runs", Some(cookie), "").await).await;
    let (_, rest) = html.split_once("name=\"form_key\" value=\"").expect("a form");
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn page_tells_who_waits_for_boot_files() {
    let (context, _, _) = office().await;
    let cookie = log_in(&context).await;
    let page = text(ask(&context, "GET", "/services", Some(&cookie), "").await).await;
    for part in [
        "Boot control",
        "<td>1024</td>",
        "<td>77</td>",
        "/nodes/node-003",
        "10.0.0.9:2070",
        "tftp, for 12 s",
        "/nodes/node-005",
        "vmlinuz",
        "5 times, last 3 s ago, 16 s after the time before",
    ] {
        assert!(page.contains(part), "no {part}: {page}");
    }
}

#[tokio::test]
async fn page_leads_from_a_plan_by_typed_consent_to_its_run() {
    let (context, office, name) = office().await;
    let cookie = log_in(&context).await;
    let key = form_key(&context, &cookie).await;

    let made = ask(
        &context,
        "POST",
        "/plans",
        Some(&cookie),
        &format!("form_key={key}&nodes={name}"),
    )
    .await;
    assert_eq!(made.status(), StatusCode::SEE_OTHER);
    assert_eq!(made.headers()[header::LOCATION], "/plans/0123456789ab");

    let html = text(ask(&context, "GET", "/plans/0123456789ab", Some(&cookie), "").await).await;
    assert!(
        !html.contains(HOSTILE),
        "what a disk calls itself came through as it was"
    );
    for words in [
        "This destroys data of 1 machine",
        "Type the machine's name",
        "1 machine not touched",
        "<svg",
        "layer 3",
    ] {
        assert!(html.contains(words), "no {words:?} in\n{html}");
    }

    let commit = |consent: &str| format!("form_key={key}&consent={consent}");
    let path = "/plans/0123456789ab/commit";
    let none = ask(&context, "POST", path, Some(&cookie), &commit("yes")).await;
    assert_eq!(none.status(), StatusCode::PRECONDITION_REQUIRED);
    assert!(text(none).await.contains("destroys data of"));
    let forged = ask(
        &context,
        "POST",
        path,
        Some(&cookie),
        &format!("form_key=x&consent={name}"),
    )
    .await;
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
    *office.stale.lock().unwrap() = true;
    let stale = ask(&context, "POST", path, Some(&cookie), &commit(&name)).await;
    assert_eq!(stale.status(), StatusCode::CONFLICT);
    assert!(text(stale).await.contains("are others &lt;script"));
    *office.stale.lock().unwrap() = false;
    let begun = ask(&context, "POST", path, Some(&cookie), &commit(&name)).await;
    assert_eq!(begun.headers()[header::LOCATION], "/runs/1");
    assert!(
        office
            .asked
            .lock()
            .unwrap()
            .contains(&"commit 0123456789ab by admin".to_owned())
    );

    let html = text(ask(&context, "GET", "/runs/1", Some(&cookie), "").await).await;
    assert!(!html.contains(HOSTILE));
    // The templates write a slash in an attribute as its number.
    let html = html.replace("&#x2f;", "/");
    for words in [
        "running 43 %",
        "1 of 4 done",
        "data-stream=\"/api/v1/runs/1/stream\"",
        "Pause",
    ] {
        assert!(html.contains(words), "no {words:?} in\n{html}");
    }
    let paused = ask(
        &context,
        "POST",
        "/runs/1/order",
        Some(&cookie),
        &format!("form_key={key}&order=pause"),
    )
    .await;
    assert_eq!(paused.status(), StatusCode::SEE_OTHER);
    assert!(office.asked.lock().unwrap().contains(&"pause 1 by admin".to_owned()));
}

#[tokio::test]
async fn page_shows_the_services_of_a_plan_and_how_they_stand_in_its_run() {
    let (context, _, _) = office().await;
    let cookie = log_in(&context).await;
    let html = text(ask(&context, "GET", "/plans/0123456789ab", Some(&cookie), "").await).await;
    assert!(
        !html.contains(HOSTILE),
        "what a site file calls a server came through as it was"
    );
    for words in [
        "4 actions on 1 machine,",
        "<b>services</b>",
        "layer 4",
        "systems on network lan ask 10.20.0.2",
        "missing when it was last asked",
        "external at 10.20.0.2",
        // Its lane and its box in the graph.
        ">services</text>",
        "<title>network.lan/dns:",
        ">dns</text>",
    ] {
        assert!(html.contains(words), "no {words:?} in\n{html}");
    }
    let html = text(ask(&context, "GET", "/runs/1", Some(&cookie), "").await).await;
    assert!(!html.contains(HOSTILE));
    for words in ["attempt 2 failed: dns is not there: no answer", "tried again"] {
        assert!(html.contains(words), "no {words:?} in\n{html}");
    }
}

#[tokio::test]
async fn page_shows_how_much_of_a_plan_and_of_its_run_is_done_at_the_same_time() {
    let (context, _, _) = office().await;
    let cookie = log_in(&context).await;
    for path in ["/plans/0123456789ab", "/runs/1"] {
        let html = text(ask(&context, "GET", path, Some(&cookie), "").await).await;
        let (_, limits) = html.split_once("At the same time: ").expect(path);
        let (limits, _) = limits.split_once("</p>").unwrap();
        assert!(
            limits.starts_with("at most 24 actions, 2 of &lt;script"),
            "{path}: {limits}"
        );
        assert!(limits.ends_with("4 of os.write."), "{path}: {limits}");
    }
}

#[tokio::test]
async fn page_checks_a_site_file_and_sets_it_only_over_the_one_it_showed() {
    let (context, office, _) = office().await;
    let cookie = log_in(&context).await;
    let key = form_key(&context, &cookie).await;
    let tag = |html: &str| {
        let (_, rest) = html.split_once("name=\"tag\" value=\"").expect("a tag");
        rest.split('"')
            .next()
            .unwrap()
            .replace("&quot;", "%22")
            .replace("&#x22;", "%22")
    };
    let first = tag(&text(ask(&context, "GET", "/site", Some(&cookie), "").await).await);
    let form = |tag: &str, text: &str, action: &str| format!("form_key={key}&tag={tag}&text={text}&action={action}");

    let wrong = ask(&context, "POST", "/site", Some(&cookie), &form(&first, "disc", "check")).await;
    let html = text(wrong).await;
    assert!(
        html.contains("line 3") && html.contains("did you mean") && !html.contains(HOSTILE),
        "{html}"
    );
    let refused = ask(&context, "POST", "/site", Some(&cookie), &form(&first, "disc", "set")).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(office.site.lock().unwrap().is_empty());

    let set = ask(
        &context,
        "POST",
        "/site",
        Some(&cookie),
        &form(&first, "a%0D%0Ab", "set"),
    )
    .await;
    assert_eq!(set.status(), StatusCode::SEE_OTHER);
    assert_eq!(*office.site.lock().unwrap(), "a\nb");
    let late = ask(&context, "POST", "/site", Some(&cookie), &form(&first, "other", "set")).await;
    assert_eq!(late.status(), StatusCode::CONFLICT);
    assert_eq!(*office.site.lock().unwrap(), "a\nb");
    let html = text(ask(&context, "GET", "/site/rules", Some(&cookie), "").await).await;
    assert!(html.contains("fits") && !html.contains(HOSTILE));
    let html = text(ask(&context, "GET", "/", Some(&cookie), "").await).await;
    assert!(
        html.contains("Expected and never seen: db-9") && !html.contains(HOSTILE),
        "{html}"
    );
}

#[tokio::test]
async fn viewer_sees_the_plan_and_changes_nothing() {
    let (context, office, name) = office().await;
    let secret = "right";
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, secret.as_bytes()).as_ref());
    context.access.set_tokens(vec![Token {
        name: "looker".into(),
        sha256: rackbar_model::Digest(sha256),
        role: Role::Viewer,
    }]);
    let cookie = log_in(&context).await;
    let html = text(ask(&context, "GET", "/plans/0123456789ab", Some(&cookie), "").await).await;
    assert!(html.contains("viewer") && !html.contains("action=\"/plans/0123456789ab/commit\""));
    let refused = ask(
        &context,
        "POST",
        "/plans",
        Some(&cookie),
        &format!("form_key=x&nodes={name}"),
    )
    .await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(office.asked.lock().unwrap().is_empty());
    let tried = |kind: &EventKind| matches!(kind, EventKind::Changed { by, ok: false, .. } if by == "looker");
    let end = Instant::now() + Duration::from_secs(10);
    while !context
        .rack
        .events(0, 1_000)
        .unwrap()
        .iter()
        .any(|event| tried(&event.kind))
    {
        assert!(Instant::now() < end, "the refused change is not in the audit trail");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn page_of_sensors_and_hardware_log_is_one_of_its_own_and_defuses_what_a_bmc_says() {
    let (context, office, name) = office().await;
    let cookie = log_in(&context).await;
    let page = async |path: String| {
        let response = ask(&context, "GET", &path, Some(&cookie), "").await;
        (response.status(), text(response).await)
    };
    let (status, _) = page(format!("/nodes/{name}")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        office.asked.lock().unwrap().is_empty(),
        "the machine's page asks no BMC"
    );

    let (status, html) = page(format!("/nodes/{name}/sensors")).await;
    assert_eq!(status, StatusCode::OK);
    for words in ["95 °C", "critical", "over IPMI", "nothing"] {
        assert!(html.contains(words), "{words}: {html}");
    }
    assert!(!html.contains(HOSTILE), "{html}");
    let (status, html) = page(format!("/nodes/{name}/log?limit=7")).await;
    assert_eq!(status, StatusCode::OK);
    for words in ["one of 7", "warning", "before its clock was set", "limit=1000"] {
        assert!(html.contains(words), "{words}: {html}");
    }
    assert!(!html.contains(HOSTILE), "{html}");
    assert_eq!(
        page(format!("/nodes/{name}/log?limit=0")).await.0,
        StatusCode::BAD_REQUEST
    );
    let (status, html) = page(format!("/nodes/{name}/accounts")).await;
    assert_eq!(status, StatusCode::OK);
    for words in ["used by Rackbar", "locked", "disabled", "over Redfish"] {
        assert!(html.contains(words), "{words}: {html}");
    }
    assert!(!html.contains(HOSTILE), "{html}");
    for what in ["sensors", "accounts"] {
        let (status, _) = page(format!("/nodes/nobody/{what}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{what}");
    }
}

#[tokio::test]
async fn page_of_media_shows_what_is_in_and_sets_the_next_boot() {
    let (context, office, name) = office().await;
    let cookie = log_in(&context).await;
    let key = form_key(&context, &cookie).await;
    let html = text(ask(&context, "GET", &format!("/nodes/{name}/media"), Some(&cookie), "").await).await;
    for words in ["used by Rackbar", "CD, DVD", "the BMC failed"] {
        assert!(html.contains(words), "{words}: {html}");
    }
    assert!(!html.contains(HOSTILE), "{html}");
    let send = async |path: &str, form: String| {
        let path = format!("/nodes/{name}/{path}");
        let response = ask(&context, "POST", &path, Some(&cookie), &form).await;
        (response.status(), text(response).await)
    };
    let image = "image=http%3A%2F%2F10.20.0.1%2Fx.iso";
    assert_eq!(
        send("media", format!("form_key={key}&{image}")).await.0,
        StatusCode::SEE_OTHER
    );
    assert_eq!(
        send("media", format!("form_key={key}&image=")).await.0,
        StatusCode::SEE_OTHER
    );
    let boot = format!("form_key={key}&from=cd&url=&restart=yes");
    assert_eq!(send("boot", boot).await.0, StatusCode::SEE_OTHER);
    let asked = [
        "media Some(\"http://10.20.0.1/x.iso\")",
        "media None",
        "boot cd None true by admin",
    ];
    assert_eq!(*office.asked.lock().unwrap(), asked);
    // What makes no sense or comes from elsewhere reaches no BMC.
    let (status, words) = send("media", format!("form_key={key}&image=ftp%3A%2F%2Fx%2Fy")).await;
    assert!(
        status == StatusCode::BAD_REQUEST && words.contains("http and https"),
        "{words}"
    );
    assert_eq!(
        send("media", format!("form_key=guess&{image}")).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        send("boot", "form_key=guess&from=cd".into()).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(*office.asked.lock().unwrap(), asked);
}

/// A machine that takes its time to be recovered.
#[derive(Default)]
struct Slow {
    begun: tokio::sync::Notify,
    go_on: tokio::sync::Notify,
}

impl crate::operations::Operations for Slow {
    fn recover(&self, _: &str, _: &str) -> crate::operations::Answer<'_, String> {
        Box::pin(async {
            self.begun.notify_one();
            self.go_on.notified().await;
            Ok("it is back".into())
        })
    }
}

#[tokio::test]
async fn a_change_is_carried_to_its_end_and_told_also_when_who_asked_hangs_up() {
    let slow = Arc::new(Slow::default());
    let context = Context {
        operations: slow.clone(),
        ..context()
    };
    let name = with_node(&context).await;
    let request = axum::http::Request::builder()
        .method("POST")
        .uri(format!("/api/v1/nodes/{name}/recover"))
        .header(header::AUTHORIZATION, "Bearer right");
    let request = request.body(axum::body::Body::empty()).unwrap();
    let asked = tower::ServiceExt::oneshot(crate::server::router(&context), request);
    tokio::select! {
        response = asked => panic!("it answered too early: {response:?}"),
        () = slow.begun.notified() => {}
    }
    slow.go_on.notify_one();
    let end = Instant::now() + Duration::from_secs(10);
    let told =
        |kind: &EventKind| matches!(kind, EventKind::Changed { what, ok: true, .. } if what.starts_with("recover"));
    while !context
        .rack
        .events(0, 1_000)
        .unwrap()
        .iter()
        .any(|event| told(&event.kind))
    {
        assert!(Instant::now() < end, "the audit trail does not tell of it");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn page_gives_the_state_a_disk_with_typed_consent_where_it_is_not_empty() {
    let (context, office, _) = office().await;
    let cookie = log_in(&context).await;
    let html = text(ask(&context, "GET", "/storage", Some(&cookie), "").await).await;
    assert!(
        !html.contains(HOSTILE),
        "what a disk calls itself came through as it was"
    );
    for words in ["480 GB", "no: sda is in use", "Type <code>sdb-serial</code>", "nothing"] {
        assert!(html.contains(words), "no {words:?} in\n{html}");
    }
    assert_eq!(html.matches("action=\"/storage\"").count(), 2, "{html}");
    let (_, rest) = html.split_once("name=\"form_key\" value=\"").expect("a form");
    let key = rest.split('"').next().unwrap();
    let (context, cookie) = (&context, &cookie);
    let post = |body: String| async move { ask(context, "POST", "/storage", Some(cookie), &body).await };
    let bare = post(format!("form_key={key}&disk=sdb")).await;
    assert_eq!(bare.status(), StatusCode::CONFLICT);
    let forged = post("form_key=x&disk=sdc".into()).await;
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
    let done = post(format!("form_key={key}&disk=sdb&destroy=sdb-serial")).await;
    assert_eq!(done.status(), StatusCode::OK);
    assert!(text(done).await.contains("sdb is prepared"));
    let asked = office.asked.lock().unwrap().clone();
    assert_eq!(asked, ["sdb None by admin", "sdb Some(\"sdb-serial\") by admin"]);
}

#[tokio::test]
async fn page_shows_a_retired_image_and_lets_it_be_taken_again() {
    let (context, office, _) = office().await;
    let cookie = log_in(&context).await;
    let html = text(ask(&context, "GET", "/images", Some(&cookie), "").await).await;
    assert!(!html.contains(HOSTILE), "a name came through as it was");
    for words in [
        "<b>retired</b> since 1970-01-01",
        "Take again",
        "/images/debian-11/standing",
    ] {
        assert!(html.contains(words), "no {words:?} in\n{html}");
    }
    let key = form_key(&context, &cookie).await;
    let post = async |body: String| ask(&context, "POST", "/images/debian-11/standing", Some(&cookie), &body).await;
    assert_eq!(
        post("form_key=x&retired=false".into()).await.status(),
        StatusCode::FORBIDDEN
    );
    assert!(html.contains("name=\"retired\" value=\"false\""), "{html}");
    assert_eq!(
        post(format!("form_key={key}&retired=false")).await.status(),
        StatusCode::SEE_OTHER
    );
    let asked = office.asked.lock().unwrap().clone();
    assert_eq!(asked, ["debian-11 ImageStanding { retired: false, instead: None }"]);
}

#[tokio::test]
async fn page_shows_programs_and_takes_one_out() {
    let (context, office, _) = office().await;
    let cookie = log_in(&context).await;
    let html = text(ask(&context, "GET", "/images", Some(&cookie), "").await).await;
    assert!(!html.contains(HOSTILE), "a name came through as it was");
    for words in ["<b>node-setup</b>", "5a5a5a5a5a5a…", "/programs/node-setup/remove"] {
        assert!(html.contains(words), "no {words:?} in\n{html}");
    }
    let key = form_key(&context, &cookie).await;
    let post = async |body: String| ask(&context, "POST", "/programs/node-setup/remove", Some(&cookie), &body).await;
    assert_eq!(post("form_key=x".into()).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(post(format!("form_key={key}")).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(*office.asked.lock().unwrap(), ["remove program node-setup"]);
}

#[tokio::test]
async fn page_refreshes_an_image_and_keeps_one_as_it_is() {
    let (context, office, _) = office().await;
    let cookie = log_in(&context).await;
    let html = text(ask(&context, "GET", "/images", Some(&cookie), "").await).await;
    assert!(!html.contains(HOSTILE), "a publisher's words came through as they were");
    for words in [
        "<b>now:</b> fetching",
        "max=\"100\" value=\"40\"",
        "/images/debian-11/refresh",
        "/images/debian-11/pin",
        "cannot reach\">no</td>",
    ] {
        assert!(html.contains(words), "no {words:?} in\n{html}");
    }
    let key = form_key(&context, &cookie).await;
    for (path, field) in [("refresh", ""), ("pin", "&pinned=true")] {
        let post = async |key: &str| {
            let body = format!("form_key={key}{field}");
            let path = format!("/images/debian-11/{path}");
            ask(&context, "POST", &path, Some(&cookie), &body).await.status()
        };
        assert_eq!(post("x").await, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(post(&key).await, StatusCode::SEE_OTHER, "{path}");
    }
    let asked = office.asked.lock().unwrap().clone();
    assert_eq!(asked, ["refresh debian-11", "debian-11 ImagePin { pinned: true }"]);
}

#[tokio::test]
async fn page_plans_a_burn_in_in_minutes() {
    let (context, office, name) = office().await;
    let cookie = log_in(&context).await;
    let key = form_key(&context, &cookie).await;
    let page = text(ask(&context, "GET", "/runs", Some(&cookie), "").await).await;
    assert!(page.contains("name=\"burn_memory\""), "{page}");
    let form = format!("form_key={key}&nodes={name}&burn_cpu=0&burn_memory=120&burn_disk=5");
    let made = ask(&context, "POST", "/plans", Some(&cookie), &form).await;
    assert_eq!(made.status(), StatusCode::SEE_OTHER);
    let asked = office.asked.lock().unwrap().clone();
    assert!(
        asked.iter().any(|one| one.ends_with("burn-in [0, 7200, 300]")),
        "{asked:?}"
    );
}
