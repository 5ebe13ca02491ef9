#!/usr/bin/env python3
"""Cuts what the tests need out of GitHub's OpenAPI description: extract.py <package of @octokit/openapi> > github.openapi.json

Kept are the questions that a backfill asks: their parameters, the schema of the answer and its example. `nullable` of OpenAPI
3.0 becomes a type of JSON Schema; words for people are left out."""
import json
import sys

PATHS = [
    "/user",
    "/repos/{owner}/{repo}",
    "/repos/{owner}/{repo}/actions/workflows",
    "/repos/{owner}/{repo}/actions/runs",
    "/repos/{owner}/{repo}/actions/runs/{run_id}/attempts/{attempt_number}",
    "/repos/{owner}/{repo}/actions/runs/{run_id}/jobs",
    "/repos/{owner}/{repo}/deployments",
    "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses",
    "/repos/{owner}/{repo}/pulls",
    "/repos/{owner}/{repo}/pulls/{pull_number}",
    "/repos/{owner}/{repo}/pulls/{pull_number}/commits",
    "/repos/{owner}/{repo}/issues",
    "/repos/{owner}/{repo}/releases",
]
KEPT = {
    "type", "properties", "items", "required", "enum", "allOf", "anyOf", "oneOf", "additionalProperties", "minimum", "maximum",
    "default", "pattern", "minLength", "maxLength", "minItems", "maxItems",
}


def schema(node):
    if isinstance(node, bool):
        return node
    kept = {}
    for word, value in node.items():
        if word == "properties":
            kept[word] = {name: schema(value[name]) for name in value}
        elif word in ("items", "additionalProperties"):
            kept[word] = schema(value)
        elif word in ("allOf", "anyOf", "oneOf"):
            kept[word] = [schema(part) for part in value]
        elif word in KEPT and not (word == "default" and value is None):
            kept[word] = value
    if node.get("nullable"):
        if "type" in kept:
            kind = kept["type"]
            kept["type"] = (kind if isinstance(kind, list) else [kind]) + ["null"]
            if "enum" in kept and None not in kept["enum"]:
                kept["enum"] = kept["enum"] + [None]
        else:
            kept = {"anyOf": [kept, {"type": "null"}]}
    return kept


def main():
    with open(f"{sys.argv[1]}/generated/api.github.com.deref.json", encoding="utf-8") as file:
        description = json.load(file)
    cut = {}
    for path in PATHS:
        question = description["paths"][path]["get"]
        answer = question["responses"]["200"]["content"]["application/json"]
        examples = [example["value"] for example in answer.get("examples", {}).values()]
        query = {p["name"]: schema(p["schema"]) for p in question.get("parameters", []) if p["in"] == "query"}
        cut[path] = {"query": query, "schema": schema(answer["schema"]), "example": examples[0] if examples else None}
    json.dump({"version": description["info"]["version"], "paths": cut}, sys.stdout, separators=(",", ":"), sort_keys=True)


main()
