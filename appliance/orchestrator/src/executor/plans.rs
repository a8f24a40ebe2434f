//! The site in force, and plans made from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use rackbar_model::{BurnIn, Digest, EventKind, Severity};
use rackbar_plan::planner::{self, INSTALL_ROLE};
use rackbar_plan::rules::Rules;
use rackbar_plan::{Facts, OwnService, Plan, RuleTrace, Scope, Site, SiteProblem, is_of_system};

use super::types::{Made, PLANS_KEPT, SavedSite};
use super::{Book, Executor, Inner, PlanError, PlanRequest, SiteInForce, memory};
use crate::Rack;
use crate::rack::{locked, now};

fn digest(text: &str) -> Digest {
    Digest(rackbar_trust::sha256(text.as_bytes()))
}

/// The site of an earlier life; `None`, and said, when this program refuses it.
pub(super) fn restore(saved: SavedSite, services: &BTreeSet<OwnService>, rack: &Rack) -> Option<Arc<SiteInForce>> {
    match Site::parse_for(&saved.text, services) {
        Ok(site) => Some(Arc::new(SiteInForce {
            digest: digest(&saved.text),
            text: saved.text,
            since: saved.since,
            by: saved.by,
            site,
        })),
        Err(problems) => {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            let text = format!("the site file that was in force is refused by this version: {first}; set it again");
            let severity = Severity::Error;
            rack.tell(None, EventKind::Note { text, severity });
            None
        }
    }
}

impl Executor {
    /// The site in force.
    pub fn site(&self) -> Option<Arc<SiteInForce>> {
        locked(&self.inner.book).site.clone()
    }

    /// Static addresses that nodes were given, with what was installed on each; for names.
    pub fn given_addresses(&self) -> Vec<(rackbar_model::NodeId, Vec<std::net::IpAddr>)> {
        let book = locked(&self.inner.book);
        let given = book.work.iter().filter(|(_, work)| work.setup.is_some());
        given
            .map(|(node, work)| {
                let own = work.addresses.iter().filter(|(holder, _)| is_of_system(holder));
                (*node, own.map(|(_, address)| *address).collect())
            })
            .collect()
    }

    /// Puts a site file in force, durably. Nothing is done to any machine: that takes a plan and a commit.
    ///
    /// # Errors
    /// When the text is refused, or cannot be kept; the site in force stays.
    pub fn set_site(&self, text: &str, by: &str) -> Result<Arc<SiteInForce>, Vec<SiteProblem>> {
        let site = Site::parse_for(text, &self.inner.services)?;
        let saved = SavedSite {
            text: text.to_owned(),
            since: now(),
            by: by.to_owned(),
        };
        let kept = memory::write(&self.inner.store, &[memory::site_entry(&saved)]);
        kept.map_err(|error| {
            let message = format!("the site file is right, but could not be kept: {error}");
            let (field, suggestion) = (String::new(), Some("look at the state of the store".to_owned()));
            vec![SiteProblem {
                line: 1,
                column: 1,
                field,
                message,
                suggestion,
            }]
        })?;
        let in_force = Arc::new(SiteInForce {
            digest: digest(text),
            text: saved.text,
            since: saved.since,
            by: saved.by,
            site,
        });
        {
            let mut book = locked(&self.inner.book);
            book.site = Some(in_force.clone());
            book.seen.clear();
            book.looked_at = 0;
        }
        let digest = in_force.digest.to_string().chars().take(12).collect();
        self.inner.rack.tell(
            None,
            EventKind::SiteSet {
                digest,
                by: by.to_owned(),
            },
        );
        self.inner.wake();
        Ok(in_force)
    }

    /// Which role each node gets and why, from the site in force or from another text.
    ///
    /// # Errors
    /// When the text is refused. Without any site there are no rules, and nothing binds any node.
    pub fn test_rules(&self, text: Option<&str>) -> Result<Vec<RuleTrace>, Vec<SiteProblem>> {
        let book = locked(&self.inner.book);
        let site = match text {
            Some(text) => Site::parse_for(text, &self.inner.services)?,
            None => book.site.as_ref().map(|site| site.site.clone()).unwrap_or_default(),
        };
        let rules = Rules::new(&site);
        let nodes = self.inner.rack.nodes();
        let traces = nodes
            .into_iter()
            .map(|node| rules.trace(&self.inner.node_facts(&book, node)));
        Ok(traces.collect())
    }

    /// Makes a plan. Nothing is done until it is committed.
    ///
    /// # Errors
    /// When there is nothing to plan from or a node is not known.
    pub fn plan(&self, request: &PlanRequest) -> Result<Arc<Plan>, PlanError> {
        let mut book = locked(&self.inner.book);
        for node in request.nodes.iter().flatten() {
            self.inner.rack.node_by_id(*node).ok_or(PlanError::NoSuchNode(*node))?;
        }
        let (site, facts) = self.inner.basis(&book, request)?;
        let scope = scope(request);
        let made = |book: &mut Book, scope: &Scope| {
            // An order by itself has a site by itself: the memory stays that of the site in force.
            if request.install.is_some() || request.burn_in.is_some() {
                return rackbar_plan::plan(&site, &facts, scope, now());
            }
            rackbar_plan::replan(&mut book.as_wanted, &site, &facts, scope, now())
        };
        let mut plan = made(&mut book, &scope);
        // Who asks for the whole rack does not mean to begin anew what is under way to the same end.
        let on_the_way = super::takeover::on_the_way(&book, &plan);
        if request.nodes.is_none() && !on_the_way.is_empty() {
            let others = facts.nodes.iter().map(|node| node.node.id);
            let nodes = Some(others.filter(|node| !on_the_way.contains_key(node)).collect());
            plan = made(&mut book, &Scope { nodes, ..scope });
            plan.left_out.extend(on_the_way.into_values());
        }
        let plan = Arc::new(plan);
        book.plans.retain(|made| made.plan.id != plan.id);
        if book.plans.len() >= PLANS_KEPT {
            book.plans.pop_front();
        }
        book.plans.push_back(Made {
            plan: plan.clone(),
            request: request.clone(),
        });
        Ok(plan)
    }
}

/// What is planned for a request.
pub(super) fn scope(request: &PlanRequest) -> Scope {
    Scope {
        nodes: request.nodes.clone(),
        reinstall: request.reinstall,
        // Whoever names a machine and a system for it wants that system there, and nothing anew that is there already.
        replace_adopted: request.install.is_some(),
        rotate_passwords: request.rotate_passwords,
        burn_in: request.burn_in,
    }
}

/// The site that a burn-in is planned from: none is needed.
fn burn_in(base: Option<&Site>, wanted: &BurnIn, request: &PlanRequest) -> Result<Site, PlanError> {
    if request.install.is_some() || request.reinstall || request.rotate_passwords {
        return Err(PlanError::BurnInAlone);
    }
    if *wanted == BurnIn::default() {
        return Err(PlanError::BurnsNothing);
    }
    if request.nodes.as_ref().is_none_or(Vec::is_empty) {
        return Err(PlanError::NoNodes);
    }
    Ok(base.cloned().unwrap_or_default())
}

impl Inner {
    /// The site and the facts that a request is planned from: in simple mode a site of its own, with its nodes bound.
    pub(super) fn basis(&self, book: &Book, request: &PlanRequest) -> Result<(Site, Facts), PlanError> {
        let mut facts = self.facts(book);
        let base = book.site.as_ref().map(|site| &site.site);
        if let Some(wanted) = &request.burn_in {
            return Ok((burn_in(base, wanted, request)?, facts));
        }
        let Some(install) = &request.install else {
            return Ok((base.ok_or(PlanError::NoSite)?.clone(), facts));
        };
        let wanted = request
            .nodes
            .as_ref()
            .filter(|nodes| !nodes.is_empty())
            .ok_or(PlanError::NoNodes)?;
        let keys = install.ssh_keys.clone();
        let mut site = planner::install(base, &install.os, install.disk.clone(), keys);
        if let Some(role) = site.role.get_mut(INSTALL_ROLE) {
            role.root.mirror = install.mirror;
        }
        for node in &mut facts.nodes {
            node.role = wanted.contains(&node.node.id).then(|| INSTALL_ROLE.to_owned());
        }
        Ok((site, facts))
    }
}
