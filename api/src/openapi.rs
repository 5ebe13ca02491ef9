//! The `OpenAPI` description, made from the route matrix.

use serde_json::{Map, Value, json};

use crate::Class;
use crate::access::{Access, ROUTES};

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
