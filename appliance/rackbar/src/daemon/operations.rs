//! What people ask for through API and page, put to the executor and the image catalogue.
//!
//! The executor waits for the disk, so it is asked from threads that may.

mod accounts;
mod answers;
mod captures;
mod consoles;
mod hardware;
mod places;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rackbar_artifacts::Programs;
use rackbar_artifacts::images::Images;
use rackbar_control::operations::{
    AccountList, AccountOrder, AccountsChanged, AdoptRequest, Adoption, Answer, Answers, AnswersRequest, Body,
    BootControl, BootRequest, BootState, CacheEntry, CacheOrder, CacheState, CaptureOrder, CatalogueEntry,
    EnrolmentEntry, ExpectedMachine, ExportEntry, ExportParts, ExportSizes, HardwareLog, HardwareProfile, ImagePin,
    ImageRefresh, ImageStanding, LogPage, LogQuery, LoginKey, MediaList, NewImage, NewPack, NewProgram, Operations,
    Order, PackEntry, PackFile, PackOrder, PackState, PlanRequest, ProfileSignature, PutProgram, RecentCapture,
    Refused, RegistrationState, RepositoryCheck, RepositoryEntry, RuleMatch, SecretsLock, SensorList, SiteMistake,
    StorageOrder, StorageState, Verdict, WebhookEntry,
};
use rackbar_model::{ImageEntry, ProgramEntry, Upstream};
use rackbar_orchestrator::executor::{Executor, Install, OrderError, PlanRequest as Wanted, RunOrder};
use rackbar_orchestrator::{Consoles, Rack};
use rackbar_plan::{Plan, PlanId, Run, RunId, Site};
use rackbar_services::Common;
use rackbar_services::syslog::LogStore;

use answers::{expected, no_report, node, rule_match, text, the_run};

use super::cache::{self, CacheDoor};
use super::carry::{self, Along};
use super::handoff::{self, HandOff};

use super::keep::Keep;
use super::packs::Packs;
use super::profiles::ProfileDoor;
use super::refresh::Refreshes;
use super::refusals::{of_adoption, of_answers, of_commit, of_image, of_node, of_plan, of_program, of_verify};
use super::registrations::RegistryDoor;
use super::repositories::Repositories;
use super::support::Support;
use super::uploads::{stand, take_in, take_in_program};
use super::webhooks::HookDoor;
use super::works::Works;
use crate::mistakes::mistakes;

/// Between two looks whether checks are done.
const LOOK: Duration = Duration::from_millis(250);

/// The door, opened.
pub(super) struct Asked {
    rack: Rack,
    works: Works,
    keep: Keep,
    common: Common,
    cache: CacheDoor,
    packs: Packs,
    profiles: ProfileDoor,
    refreshes: Refreshes,
    repositories: Repositories,
    hooks: HookDoor,
    registry: RegistryDoor,
    consoles: Arc<Consoles>,
    logs: Option<Arc<LogStore>>,
}

impl Asked {
    pub(super) fn new(
        rack: Rack,
        works: Works,
        keep: Keep,
        common: Common,
        logs: Option<Arc<LogStore>>,
        (cache, packs, profiles): (CacheDoor, Packs, ProfileDoor),
        (hooks, registry): (HookDoor, RegistryDoor),
    ) -> Self {
        let consoles = Arc::new(Consoles::new(rack.clone(), keep.folder.join("console")));
        consoles.record_where_wanted();
        let refreshes = Refreshes::new(
            rack.clone(),
            works.executor.clone(),
            works.images.clone(),
            cache.clone(),
        );
        let repositories = Repositories::new(&rack, &works.executor, &keep.store, &cache);
        Self {
            rack,
            works,
            keep,
            common,
            cache,
            packs,
            profiles,
            refreshes,
            repositories,
            hooks,
            registry,
            consoles,
            logs,
        }
    }

    /// What goes along with the state.
    fn along(&self) -> Along {
        Along {
            images: self.works.images.clone(),
            programs: self.works.programs.clone(),
            packs: self.packs.clone(),
        }
    }

    /// Asks for something of the state as a whole where waiting is allowed.
    fn keep<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Keep) -> Result<T, Refused> + Send + 'static,
    ) -> Answer<'_, T> {
        let keep = self.keep.clone();
        self.ask(move |_, _| work(&keep))
    }

    /// Asks the executor where waiting is allowed.
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Executor, &Rack) -> Result<T, Refused> + Send + 'static,
    ) -> Answer<'_, T> {
        let (executor, rack) = (self.works.executor.clone(), self.rack.clone());
        async move {
            let done = tokio::task::spawn_blocking(move || work(&executor, &rack)).await;
            done.unwrap_or_else(|error| Err(Refused::Internal(error.to_string())))
        }
        .boxed()
    }

    /// Asks for something of the hand-over where waiting is allowed.
    fn hand_off<T: Send + 'static>(
        &self,
        work: impl FnOnce(&HandOff) -> Result<T, Refused> + Send + 'static,
    ) -> Answer<'_, T> {
        let store = self.keep.store.clone();
        self.ask(move |executor, rack| {
            work(&HandOff {
                site: executor.site().map(|site| site.site.clone()),
                nodes: rack.nodes(),
                store,
            })
        })
    }

    /// Begins a run of the checks on these machines, or on all that have something installed.
    fn begin_checks(&self, nodes: Vec<String>, by: &str) -> Answer<'_, Arc<Run>> {
        let by = by.to_owned();
        self.ask(move |executor, rack| {
            let ids = nodes.iter().map(|name| node(rack, name).map(|node| node.id));
            let ids: Vec<_> = ids.collect::<Result<_, _>>()?;
            let run = executor
                .verify((!ids.is_empty()).then_some(ids), &by)
                .map_err(of_verify)?;
            the_run(executor, run)
        })
    }

    fn images(&self) -> Result<Arc<Images>, Refused> {
        let none = || Refused::Unavailable("there is no image catalogue; the events say why".into());
        self.works.images.clone().ok_or_else(none)
    }

    fn programs(&self) -> Result<Programs, Refused> {
        let none = || Refused::Unavailable("there is no place for programs; the events say why".into());
        self.works.programs.clone().ok_or_else(none)
    }
}

impl Operations for Asked {
    fn site(&self) -> Answer<'_, String> {
        self.ask(|executor, _| Ok(executor.site().map(|site| site.text.clone()).unwrap_or_default()))
    }

    fn check_site(&self, text: String) -> Answer<'_, Vec<SiteMistake>> {
        self.ask(move |_, _| Ok(Site::parse(&text).err().map(mistakes).unwrap_or_default()))
    }

    fn set_site(&self, text: String, by: &str) -> Answer<'_, ()> {
        let by = by.to_owned();
        self.ask(move |executor, _| {
            let set = executor.set_site(&text, &by);
            set.map(drop).map_err(|problems| Refused::Mistakes(mistakes(problems)))
        })
    }

    fn site_schema(&self) -> Answer<'_, serde_json::Value> {
        self.ask(|_, _| Ok(Site::schema()))
    }

    fn diff_sites(&self, before: String, after: String) -> Answer<'_, Vec<String>> {
        self.ask(move |_, _| {
            let parse = |text: &str| Site::parse(text).map_err(|problems| Refused::Mistakes(mistakes(problems)));
            let (before, after) = (parse(&before)?, parse(&after)?);
            let differences = rackbar_plan::site::diff(&before, &after);
            Ok(differences.iter().map(ToString::to_string).collect())
        })
    }

    fn test_rules(&self, text: Option<String>) -> Answer<'_, Vec<RuleMatch>> {
        self.ask(move |executor, rack| {
            let traces = executor.test_rules(text.as_deref());
            let traces = traces.map_err(|problems| Refused::Mistakes(mistakes(problems)))?;
            Ok(traces.into_iter().map(|trace| rule_match(rack, trace)).collect())
        })
    }

    fn expected(&self) -> Answer<'_, Vec<ExpectedMachine>> {
        self.ask(|executor, _| {
            let each = executor.expected().into_iter();
            Ok(each.map(expected).collect())
        })
    }

    fn plan(&self, request: PlanRequest) -> Answer<'_, Arc<Plan>> {
        self.ask(move |executor, rack| {
            let ids = request.nodes.iter().map(|name| node(rack, name).map(|node| node.id));
            let ids: Vec<_> = ids.collect::<Result<_, _>>()?;
            let wanted = Wanted {
                nodes: (!ids.is_empty()).then_some(ids),
                reinstall: request.reinstall,
                rotate_passwords: request.rotate_passwords,
                install: request.install.map(|install| Install {
                    os: install.os,
                    disk: install.disk.unwrap_or_default(),
                    mirror: install.mirror,
                    ssh_keys: install.ssh_keys,
                }),
                burn_in: request.burn_in,
            };
            executor.plan(&wanted).map_err(of_plan)
        })
    }

    fn plan_by_id(&self, id: &str) -> Answer<'_, Arc<Plan>> {
        let id = PlanId(id.to_owned());
        self.ask(move |executor, _| {
            let none = || Refused::NotFound(format!("there is no plan {id}: make it again"));
            executor.plan_by_id(&id).ok_or_else(none)
        })
    }

    fn commit(&self, id: &str, consent: Vec<String>, by: &str) -> Answer<'_, Arc<Run>> {
        let (id, by) = (PlanId(id.to_owned()), by.to_owned());
        self.ask(move |executor, _| {
            let plan = executor.plan_by_id(&id);
            let run = executor.commit(&id, &consent, &by);
            let run = run.map_err(|error| of_commit(error, plan.as_deref()))?;
            the_run(executor, run)
        })
    }

    fn runs(&self) -> Answer<'_, Vec<Arc<Run>>> {
        self.ask(|executor, _| Ok(executor.runs()))
    }

    fn run(&self, id: u64) -> Answer<'_, Arc<Run>> {
        self.ask(move |executor, _| the_run(executor, RunId(id)))
    }

    fn order(&self, id: u64, order: Order, by: &str) -> Answer<'_, ()> {
        let by = by.to_owned();
        let order = match order {
            Order::Pause => RunOrder::Pause,
            Order::Resume => RunOrder::Resume,
            Order::Cancel => RunOrder::Cancel,
        };
        self.ask(move |executor, _| {
            let done = executor.order(RunId(id), order, &by);
            done.map(drop).map_err(|error| match error {
                OrderError::Unknown(_) => Refused::NotFound(error.to_string()),
                OrderError::Ended(_) => Refused::Conflict(error.to_string()),
                OrderError::Unwritten(_) => Refused::Internal(error.to_string()),
            })
        })
    }

    fn bind(&self, name: &str, role: Option<String>, by: &str) -> Answer<'_, ()> {
        let (name, by) = (name.to_owned(), by.to_owned());
        self.ask(move |executor, rack| executor.bind(node(rack, &name)?.id, role, &by).map_err(of_node))
    }

    fn recover(&self, name: &str, by: &str) -> Answer<'_, String> {
        let (name, by) = (name.to_owned(), by.to_owned());
        self.ask(move |executor, rack| {
            let recovered = executor.recover(node(rack, &name)?.id, &by).map_err(of_node)?;
            Ok(format!("it is {}; {}", recovered.state, recovered.next))
        })
    }

    fn forget(&self, name: &str, by: &str) -> Answer<'_, ()> {
        let (name, by) = (name.to_owned(), by.to_owned());
        self.ask(move |executor, rack| executor.forget(node(rack, &name)?.id, &by).map_err(of_node))
    }

    fn maintenance(&self, name: &str, on: bool, reason: String, by: &str) -> Answer<'_, ()> {
        let (name, by) = (name.to_owned(), by.to_owned());
        self.ask(move |executor, rack| {
            let done = executor.maintenance(node(rack, &name)?.id, on, &reason, &by);
            done.map_err(of_node)
        })
    }

    fn forget_firmware(&self, name: &str) -> Answer<'_, ()> {
        let (name, clients) = (name.to_owned(), Arc::clone(&self.common.clients));
        self.ask(move |_, rack| {
            for mac in &node(rack, &name)?.macs {
                // Where DHCP runs it has the last word, also over the record.
                if !clients.forget_firmware(*mac) {
                    rack.record_firmware(*mac, None);
                }
            }
            Ok(())
        })
    }

    fn webhooks(&self) -> Answer<'_, Vec<WebhookEntry>> {
        let hooks = self.hooks.clone();
        self.ask(move |_, _| hooks.list())
    }

    fn set_webhook_secret(&self, name: &str, secret: Option<String>) -> Answer<'_, String> {
        let (hooks, name) = (self.hooks.clone(), name.to_owned());
        self.ask(move |_, _| hooks.set_secret(&name, secret))
    }

    fn registrations(&self) -> Answer<'_, RegistrationState> {
        let registry = self.registry.clone();
        self.ask(move |_, _| registry.state())
    }

    fn set_registration_token(&self, token: Option<String>) -> Answer<'_, ()> {
        let registry = self.registry.clone();
        self.ask(move |_, _| registry.set_token(token.as_deref()))
    }

    fn cache(&self) -> Answer<'_, CacheState> {
        self.cache.ask(|proxy| async move { Ok(cache::state(&proxy)) })
    }

    fn cache_entries(&self) -> Answer<'_, Vec<CacheEntry>> {
        self.cache.ask(|proxy| async move { Ok(cache::entries(&proxy)) })
    }

    fn order_cache(&self, order: CacheOrder) -> Answer<'_, String> {
        self.cache.ask(move |proxy| cache::order(proxy, order))
    }

    fn verify(&self, nodes: Vec<String>, by: &str) -> Answer<'_, String> {
        let begun = self.begin_checks(nodes, by);
        async move {
            let run = begun.await?.id;
            let mut look = tokio::time::interval(LOOK);
            loop {
                look.tick().await;
                let stands = self.run(run.0).await?;
                if stands.ended.is_some() {
                    return super::proof::answer(&stands, self.rack_report().await?);
                }
            }
        }
        .boxed()
    }

    fn report(&self, name: &str) -> Answer<'_, String> {
        let name = name.to_owned();
        self.ask(move |executor, rack| {
            let report = executor.report(node(rack, &name)?.id).ok_or_else(no_report)?;
            Ok(text(&report))
        })
    }

    fn rack_report(&self) -> Answer<'_, String> {
        self.ask(|executor, _| executor.rack_report().as_ref().map(text).ok_or_else(no_report))
    }

    fn images(&self) -> Answer<'_, Vec<CatalogueEntry>> {
        let (images, proxy) = (Self::images(self), self.cache.open());
        // Waits for whoever holds the catalogue, and looks through the whole cache.
        self.ask(move |_, _| {
            let archives = super::offline::Archives::look(proxy.as_ref().map(|(proxy, _)| &**proxy));
            Ok(super::uploads::catalogue(&*images?, &archives))
        })
    }

    fn packs(&self) -> Answer<'_, PackState> {
        self.packs.clone().all().boxed()
    }

    fn order_packs(&self, order: PackOrder) -> Answer<'_, String> {
        self.packs.clone().order(order).boxed()
    }

    fn put_pack(&self, pack: NewPack) -> Answer<'_, PackEntry> {
        self.packs.clone().take_in(pack).boxed()
    }

    fn remove_pack(&self, name: &str) -> Answer<'_, ()> {
        self.packs.clone().remove(name.to_owned()).boxed()
    }

    fn pack_file(&self, name: &str) -> Answer<'_, PackFile> {
        self.packs.clone().give(name.to_owned()).boxed()
    }

    fn hardware_profiles(&self) -> Answer<'_, Vec<HardwareProfile>> {
        let list = self.profiles.list();
        async move { Ok(list) }.boxed()
    }

    fn sign_profile(&self, text: String) -> Answer<'_, ProfileSignature> {
        let signed = self.profiles.sign(&text);
        async move { signed }.boxed()
    }

    fn put_image(&self, image: NewImage) -> Answer<'_, ImageEntry> {
        let (images, used) = (Self::images(self), self.works.executor.clone());
        async move {
            let images = images?;
            // What stayed for runs that have ended makes room.
            images.release(&used.images_in_use());
            take_in(images, image).await
        }
        .boxed()
    }

    fn remove_image(&self, name: &str) -> Answer<'_, ()> {
        let (images, name) = (Self::images(self), name.to_owned());
        self.ask(move |executor, _| {
            let (images, used) = (images?, executor.images_in_use());
            images.release(&used);
            let removed = images.remove(&name, &used);
            removed.map(drop).map_err(|error| of_image(&error))
        })
    }

    fn programs(&self) -> Answer<'_, Vec<ProgramEntry>> {
        let programs = Self::programs(self);
        async move { Ok(programs?.list().iter().map(|entry| (**entry).clone()).collect()) }.boxed()
    }

    fn put_program(&self, program: NewProgram) -> Answer<'_, PutProgram> {
        let (programs, executor) = (Self::programs(self), self.works.executor.clone());
        async move { take_in_program(programs?, executor, program).await }.boxed()
    }

    fn remove_program(&self, name: &str) -> Answer<'_, ()> {
        let (programs, name) = (Self::programs(self), name.to_owned());
        self.ask(move |executor, _| {
            let programs = programs?;
            let removed = programs.remove(&name, &executor.programs_in_use());
            removed.map_err(|error| of_program(&error))?;
            programs.sweep(&executor.programs_in_use());
            Ok(())
        })
    }

    fn set_image_standing(&self, name: &str, standing: ImageStanding) -> Answer<'_, String> {
        let (images, name) = (Self::images(self), name.to_owned());
        self.ask(move |_, _| stand(&*images?, &name, &standing))
    }

    fn set_image_upstream(&self, name: &str, upstream: Upstream) -> Answer<'_, String> {
        let (refreshes, name) = (self.refreshes.clone(), name.to_owned());
        self.ask(move |_, _| refreshes.set_upstream(&name, upstream))
    }

    fn pin_image(&self, name: &str, pin: ImagePin) -> Answer<'_, String> {
        let (refreshes, name) = (self.refreshes.clone(), name.to_owned());
        self.ask(move |_, _| refreshes.pin(&name, &pin))
    }

    fn refresh_image(&self, name: &str) -> Answer<'_, ImageRefresh> {
        let (refreshes, name) = (self.refreshes.clone(), name.to_owned());
        self.ask(move |_, _| refreshes.begin(&name))
    }

    fn image_refresh(&self, name: &str) -> Answer<'_, ImageRefresh> {
        let outcome = self.refreshes.show(name);
        async move { outcome }.boxed()
    }

    fn repositories(&self) -> Answer<'_, Vec<RepositoryEntry>> {
        self.repositories.all()
    }

    fn check_repository(&self, name: &str) -> Answer<'_, RepositoryCheck> {
        self.repositories.check(name)
    }

    fn lock_repository(&self, name: &str, by: &str, fetch: bool) -> Answer<'_, String> {
        self.repositories.lock(name, by, fetch)
    }

    fn unlock_repository(&self, name: &str) -> Answer<'_, String> {
        self.repositories.unlock(name)
    }

    fn export_sizes(&self) -> Answer<'_, ExportSizes> {
        let along = self.along();
        self.keep(move |keep| along.sizes(keep))
    }

    fn export(&self, passphrase: String, parts: ExportParts) -> Answer<'_, Body> {
        carry::export(self.keep.clone(), self.along(), passphrase, parts).boxed()
    }

    fn support_bundle(&self) -> Answer<'_, Vec<u8>> {
        let (keep, logs, hooks) = (self.keep.clone(), self.logs.clone(), self.hooks.clone());
        let kept = self.common.captures.clone();
        self.ask(move |executor, rack| {
            let (keep, logs, hooks, captures) = (&keep, logs.as_deref(), &hooks, &kept);
            let support = Support {
                keep,
                executor,
                rack,
                logs,
                hooks,
                captures,
            };
            support.bundle()
        })
    }

    fn import(&self, file: Body, passphrase: String, by: &str) -> Answer<'_, String> {
        carry::import(self.keep.clone(), file, passphrase, by.to_owned()).boxed()
    }

    fn recent_capture(&self, query: RecentCapture) -> Answer<'_, Vec<u8>> {
        let kept = self.common.captures.clone();
        self.ask(move |_, rack| captures::recent(&kept, rack, &query))
    }

    fn capture(&self, order: CaptureOrder) -> Answer<'_, Body> {
        let kept = self.common.captures.clone();
        self.ask(move |_, rack| captures::begin(&kept, rack, order))
    }

    fn boot_control(&self) -> Answer<'_, BootControl> {
        let (common, rack) = (self.common.clone(), self.rack.clone());
        async move { Ok(places::boot_control(&common, &rack)) }.boxed()
    }

    fn storage(&self) -> Answer<'_, StorageState> {
        self.keep(|keep| Ok(keep.storage.state()))
    }

    fn use_disk(&self, order: StorageOrder, by: &str) -> Answer<'_, String> {
        let (by, rack) = (by.to_owned(), self.rack.clone());
        self.keep(move |keep| keep.use_disk(&order, &by, &rack))
    }

    fn secrets(&self) -> Answer<'_, SecretsLock> {
        self.keep(Keep::lock)
    }

    fn lock_secrets(&self, passphrase: Option<String>) -> Answer<'_, SecretsLock> {
        self.keep(move |keep| keep.lock_with(passphrase.as_deref()))
    }

    fn bmc_logins(&self, passphrase: String) -> Answer<'_, Vec<u8>> {
        self.keep(move |keep| keep.bmc_logins(&passphrase))
    }

    fn console_record(&self, name: &str) -> Answer<'_, Vec<u8>> {
        let found = node(&self.rack, name);
        async move { consoles::record(&self.consoles, &*found?).await }.boxed()
    }

    fn console(&self, name: &str) -> Answer<'_, Body> {
        let found = node(&self.rack, name);
        async move { consoles::watch(&self.consoles, &*found?).await }.boxed()
    }

    fn type_in(&self, name: &str, keys: Vec<u8>) -> Answer<'_, ()> {
        let found = node(&self.rack, name);
        async move { consoles::type_in(&self.consoles, &*found?, keys).await }.boxed()
    }

    fn sensors(&self, name: &str) -> Answer<'_, SensorList> {
        let found = node(&self.rack, name);
        async move { hardware::sensors(&self.rack, &*found?).await }.boxed()
    }

    fn hardware_log(&self, name: &str, limit: u16) -> Answer<'_, HardwareLog> {
        let found = node(&self.rack, name);
        async move { hardware::log(&self.rack, &*found?, limit).await }.boxed()
    }

    fn accounts(&self, name: &str) -> Answer<'_, AccountList> {
        let found = node(&self.rack, name);
        async move { accounts::list(&self.rack, &*found?).await }.boxed()
    }

    fn order_account(&self, name: &str, order: AccountOrder) -> Answer<'_, AccountsChanged> {
        let found = node(&self.rack, name);
        async move { accounts::order(&self.rack, &*found?, order).await }.boxed()
    }

    fn media(&self, name: &str) -> Answer<'_, MediaList> {
        let found = node(&self.rack, name);
        async move { hardware::media(&self.rack, &*found?).await }.boxed()
    }

    fn set_media(&self, name: &str, image: Option<String>) -> Answer<'_, MediaList> {
        let found = node(&self.rack, name);
        async move { hardware::set_media(&self.rack, &*found?, image.as_deref()).await }.boxed()
    }

    fn boot(&self, name: &str) -> Answer<'_, BootState> {
        let found = node(&self.rack, name);
        async move { hardware::boot(&self.rack, &*found?).await }.boxed()
    }

    fn set_boot(&self, name: &str, request: BootRequest, by: &str) -> Answer<'_, BootState> {
        let (found, by) = (node(&self.rack, name), by.to_owned());
        async move { hardware::set_boot(&self.rack, &*found?, request, &by).await }.boxed()
    }

    fn logs(&self, query: LogQuery) -> Answer<'_, LogPage> {
        let store = self.logs.clone();
        self.ask(move |executor, rack| {
            let missing = || Refused::Unavailable("logs cannot be kept here; an event says why".into());
            super::logs::search(store.as_ref().ok_or_else(missing)?, executor, rack, &query)
        })
    }

    fn ansible(&self) -> Answer<'_, serde_json::Value> {
        self.ask(|executor, rack| {
            Ok(handoff::inventory(
                executor.site().map(|site| site.site.clone()).as_ref(),
                &rack.nodes(),
            ))
        })
    }

    fn exports(&self) -> Answer<'_, Vec<ExportEntry>> {
        self.ask(|_, _| Ok(handoff::exports()))
    }

    fn export_of(&self, tool: &str, what: &str, node: Option<String>) -> Answer<'_, String> {
        let (tool, what) = (tool.to_owned(), what.to_owned());
        self.hand_off(move |view| view.render(&tool, &what, node.as_deref()))
    }

    fn autosign(&self, certname: String, csr: String) -> Answer<'_, Verdict> {
        self.hand_off(move |view| view.autosign(&certname, &csr))
    }

    fn enrolments(&self) -> Answer<'_, Vec<EnrolmentEntry>> {
        self.hand_off(HandOff::enrolments)
    }

    fn enrol(&self, node: &str, tool: &str, by: &str) -> Answer<'_, Vec<rackbar_model::OsFile>> {
        let (node, tool, by) = (node.to_owned(), tool.to_owned(), by.to_owned());
        self.hand_off(move |view| view.enrol(&node, &tool, &by))
    }

    fn revoke_enrolment(&self, node: &str, tool: &str) -> Answer<'_, ()> {
        let (node, tool) = (node.to_owned(), tool.to_owned());
        self.hand_off(move |view| view.revoke(&node, &tool))
    }

    fn adoption_key(&self) -> Answer<'_, LoginKey> {
        let key = self.works.adopter.login_key().map_err(of_adoption);
        async move { key }.boxed()
    }

    fn adopt(&self, request: AdoptRequest, by: &str) -> Answer<'_, Adoption> {
        let by = by.to_owned();
        async move { self.works.adopter.adopt(request, &by).await.map_err(of_adoption) }.boxed()
    }

    fn answers(&self, name: &str, request: AnswersRequest) -> Answer<'_, Answers> {
        let name = name.to_owned();
        self.ask(move |executor, rack| executor.answers(node(rack, &name)?.id, &request).map_err(of_answers))
    }
}
