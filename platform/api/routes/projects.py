"""Projects of the caller's tenant."""

from __future__ import annotations

from django.http import HttpRequest
from ninja import Router, Status

from api.auth import AUTH, actor_of
from api.paging import Cursor, Limit, page_of
from api.schemas.account import ProjectIn, ProjectOut, ProjectPage
from tenants.models import Project
from tenants.services import project_create

router = Router(tags=["projects"], auth=AUTH)


@router.get("/projects", response=ProjectPage, summary="List projects")
def projects_list(request: HttpRequest, limit: Limit = 50, cursor: Cursor = None) -> ProjectPage:
    """Newest first."""
    actor = actor_of(request)
    with actor.scope():
        rows = Project.objects.filter(tenant_id=actor.tenant())
        data, next_cursor = page_of(rows, _show, limit=limit, cursor=cursor)
    return ProjectPage(data=list(data), next_cursor=next_cursor)


@router.post("/projects", response={201: ProjectOut}, summary="Create a project")
def projects_create(request: HttpRequest, payload: ProjectIn) -> Status[ProjectOut]:
    """Names are unique within a tenant."""
    actor = actor_of(request)
    actor.require_write()
    with actor.scope():
        project = project_create(tenant_id=actor.tenant(), name=payload.name, actor=actor.id)
    return Status(201, _show(project))


def _show(project: Project) -> ProjectOut:
    return ProjectOut(id=project.id, name=project.name, created_at=project.created_at)
