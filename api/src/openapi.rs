//! What there is, for programs as an `OpenAPI` description and for people as a page; both are made from the route matrix.

use serde_json::{Map, Value, json};

use crate::Class;
use crate::access::{Access, ROUTES, Route};

/// All routes as plain text, for who opens the address in a browser.
pub(crate) fn page() -> String {
    let line = |route: &Route| {
        let role = match route.access {
            Access::Open => "-",
            Access::Needs(role) => role.as_str(),
        };
        format!("{:<7} {:<34} {role:<10} {}\n", route.method, route.path, route.summary)
    };
    let lines: String = ROUTES.iter().map(line).collect();
    format!(
        "KiroLinter DevOps {}\n\n{lines}\n\
         Where a role stands, send `Authorization: Bearer TOKEN`: `kirolinter token create` makes one, a door on loopback may be open.\n\
         For programs: /openapi.json. For Prometheus: /metrics. For psql and Grafana: the psql door. On the command line: kirolinter --help.\n",
        env!("CARGO_PKG_VERSION"),
    )
}

/// The description of all routes.
pub(crate) fn description() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let names = route.path.split('{').skip(1).filter_map(|part| part.split('}').next());
        let parameters: Vec<Value> =
            names.map(|n| json!({"name": n, "in": "path", "required": true, "schema": {"type": "string"}})).collect();
        let mut operation = json!({
            "summary": route.summary,
            "parameters": parameters,
            "responses": {
                "2XX": {"description": "done"},
                "default": {"description": "a problem", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}},
            },
        });
        if route.class != Class::Free {
            operation["responses"]["429"] = json!({
                "description": "over the quota of the caller",
                "headers": {
                    "Retry-After": {"description": "seconds until the next request is let in", "schema": {"type": "integer"}},
                    "RateLimit-Policy": {"description": "the quota", "schema": {"type": "string"}},
                    "RateLimit": {"description": "what is left of it", "schema": {"type": "string"}},
                },
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            });
        }
        if let Access::Needs(role) = route.access {
            operation["security"] = json!([{"token": []}]);
            operation["x-role"] = json!(role.as_str());
        }
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "KiroLinter DevOps", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": {"type": "object", "required": ["status", "title", "detail", "code"], "properties": {
                "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
                "detail": {"type": "string"}, "code": {"type": "string"},
            }}},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{ROUTES, page};

    #[test]
    fn the_page_tells_of_each_route_and_who_may_take_it() {
        let page = page();
        for route in ROUTES {
            let line = page.lines().find(|line| line.starts_with(route.method) && line.contains(&format!(" {} ", route.path)));
            assert!(line.is_some_and(|line| line.ends_with(route.summary)), "{} {}", route.method, route.path);
        }
        let create = page.lines().find(|line| line.starts_with("POST") && line.contains(" /api/v1/tokens ")).expect("a line");
        assert!(create.contains(" admin "), "{create}");
    }
}
