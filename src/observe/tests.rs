use jiff::Timestamp;
use kube::runtime::watcher::Event;

use super::*;

fn mk_budget(name: &str, owner: &str) -> BudgetView {
    BudgetView {
        meta: Meta {
            family: ("ns".into(), name.into()),
            name: name.into(),
            uid: format!("{name}-uid"),
            resource_version: 1,
            owner_uid: Some(owner.into()),
            created: Timestamp::UNIX_EPOCH,
            deleting: false,
        },
    }
}

fn key(name: &str) -> Key {
    ("ns".into(), name.into())
}

#[test]
fn an_object_that_a_relist_no_longer_shows_is_gone() {
    let shelf = Shelf::default();
    shelf.take(Event::Init);
    shelf.take(Event::InitApply(Some(mk_budget("a", "u"))));
    shelf.take(Event::InitApply(Some(mk_budget("b", "u"))));
    assert!(!shelf.synced(), "the list is not through yet");
    shelf.take(Event::InitDone);
    assert!(shelf.synced());

    shelf.take(Event::Init);
    shelf.take(Event::InitApply(Some(mk_budget("b", "u"))));
    assert_eq!(shelf.family(&key("a")).len(), 1, "while a relist runs, the old view stands");
    assert_eq!(shelf.take(Event::InitDone), vec![key("a")], "whoever lost an object is told");
    assert!(shelf.family(&key("a")).is_empty());
    assert_eq!(shelf.family(&key("b")).len(), 1);
}

#[test]
fn children_of_a_former_owner_of_the_name_are_not_ours() {
    let shelves = Shelves::default();
    shelves.budgets.take(Event::Apply(Some(mk_budget("fraud", "old"))));
    assert!(shelves.family(&key("fraud"), "new").budget.is_none());
    assert!(shelves.family(&key("fraud"), "old").budget.is_some());
}

#[test]
fn objects_without_our_label_are_not_kept() {
    let shelf: Shelf<BudgetView> = Shelf::default();
    assert!(shelf.take(Event::Apply(None)).is_empty());
}

#[test]
fn an_object_whose_label_names_no_model_deployment_is_not_taken_for_the_gateways() {
    let view = |labels: serde_json::Value| {
        let object = serde_json::json!({ "metadata": { "namespace": "ns", "name": "b", "labels": labels } });
        BudgetView::of(serde_json::from_value(object).unwrap()).map(|view| view.meta.family)
    };
    assert_eq!(view(serde_json::json!({ "modelwright.dev/deployment": "fraud" })), Some(key("fraud")));
    assert_eq!(view(serde_json::json!({ "modelwright.dev/deployment": "" })), None);
    assert_eq!(view(serde_json::json!({})), None);
}
