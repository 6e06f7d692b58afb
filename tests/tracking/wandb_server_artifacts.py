"""The part of the W&B server of the tests that keeps artifacts: versions, aliases, who made and who used them."""

from __future__ import annotations

import json
from typing import Any

ENTITY = "tester"


class Artifacts:
    """Answers to wandb's questions about artifacts; `artifacts` has what it was sent, oldest version first."""

    url: str
    artifacts: list[dict[str, Any]]

    def artifact(self, name: str) -> dict[str, Any]:
        """The version of an artifact that `name:alias` names."""
        found = self._find(name)
        assert found is not None, (name, [(one["name"], one["aliases"]) for one in self.artifacts])
        return found

    def _on_ArtifactType(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        known = self._find(variables["name"])
        of_type = {"artifactType": {"name": known["type"]}} if known else None
        return {"project": {"artifact": of_type}}

    def _on_CreateArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        given = variables["input"]
        name, digest = given["artifactCollectionName"], given["digest"]
        versions = [one for one in self.artifacts if one["name"] == name]
        known = next((one for one in versions if one["digest"] == digest), None)
        made = known or {
            "id": f"artifact-{len(self.artifacts)}",
            "name": name,
            "version": f"v{len(versions)}",
            "type": given["artifactTypeName"],
            "digest": digest,
            "metadata": json.loads(given["metadata"] or "{}"),
            "aliases": [],
            "state": "PENDING",
            "made_by": given["runName"],
            "used_by": [],
            "files": {},
        }
        for alias in [one["alias"] for one in given["aliases"]]:
            for other in versions:
                other["aliases"] = [one for one in other["aliases"] if one != alias]
            made["aliases"].append(alias)
        if known is None:
            self.artifacts.append(made)
        latest = {"latestArtifact": {"id": versions[-1]["id"]} if versions else None}
        return {"createArtifact": {"artifact": {"id": made["id"], "state": made["state"], "artifactSequence": latest}}}

    def _on_CreateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"createArtifactManifest": {"artifactManifest": self._manifest(variables["artifactID"], variables)}}

    def _on_UpdateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        artifact_id = variables["artifactManifestID"].removesuffix("-manifest")
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(artifact_id, variables)}}

    def _manifest(self, artifact_id: str, variables: dict[str, Any]) -> dict[str, Any]:
        name = f"{artifact_id}-manifest"
        file = {"id": f"{name}-file"}
        if variables["includeUpload"]:
            file |= {"uploadUrl": f"{self.url}/storage/{name}", "uploadHeaders": []}
        return {"id": name, "file": file}

    def _on_CreateArtifactFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        nodes = []
        for one in variables["input"]["artifactFiles"]:
            place = f"{one['artifactID']}/{one['name']}"
            self._by_id(one["artifactID"])["files"][one["name"]] = place
            nodes.append(
                {
                    "storagePath": place,
                    "uploadUrl": f"{self.url}/storage/{place}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": one["artifactID"]},
                }
            )
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _on_CommitArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        made = self._by_id(variables["artifactID"])
        made["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": made["id"], "digest": made["digest"]}}}

    def _on_UseArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        used = self._by_id(variables["artifactID"])
        used["used_by"].append(variables["runName"])
        return {"useArtifact": {"artifact": {"id": used["id"]}}}

    def _on_ArtifactByID(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"artifact": self._membership(self._by_id(variables["id"]))["artifact"]}

    def _on_ArtifactMembershipByName(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        found = self._find(variables["name"])
        return {"project": {"artifactCollectionMembership": self._membership(found) if found else None}}

    def _membership(self, found: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "1", "internalId": "1", "name": "p", "entity": {"name": ENTITY}}
        aliases = [{"__typename": "ArtifactAlias", "id": alias, "alias": alias} for alias in found["aliases"]]
        collection = {"__typename": "ArtifactSequence", "name": found["name"], "project": project}
        index = int(found["version"].removeprefix("v"))
        artifact = {
            "__typename": "Artifact",
            "id": found["id"],
            "artifactSequence": collection,
            "versionIndex": index,
            "artifactType": {"name": found["type"]},
            "description": None,
            "metadata": json.dumps(found["metadata"]),
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": found["state"],
            "size": 1,
            "digest": found["digest"],
            "commitHash": "0",
            "fileCount": len(found["files"]),
            "createdAt": "2026-01-01T00:00:00Z",
            "updatedAt": "2026-01-01T00:00:00Z",
            "aliases": [{**one, "artifactCollection": collection} for one in aliases],
        }
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": f"{found['id']}-membership",
            "versionIndex": index,
            "createdAt": "2026-01-01T00:00:00Z",
            "aliases": aliases,
            "artifactCollection": collection,
            "artifact": artifact,
        }

    def _by_id(self, artifact_id: str) -> dict[str, Any]:
        return next(one for one in self.artifacts if one["id"] == artifact_id)

    def _find(self, name: str) -> dict[str, Any] | None:
        collection, _, alias = name.rpartition("/")[2].partition(":")
        found = [one for one in self.artifacts if one["name"] == collection and alias in ("", *one["aliases"])]
        return found[-1] if found else None
