"""An ExApp as authors write it with nc_py_api: its app, its log, preferences and users, and a page for its user."""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from nc_py_api import AsyncNextcloudApp, NextcloudException
from nc_py_api.ex_app import AppAPIAuthMiddleware, LogLvl, anc_app, run_app, set_handlers


async def enabled_handler(enabled: bool, nc: AsyncNextcloudApp) -> str:
    await nc.log(LogLvl.WARNING, f"enabled={enabled}")
    return ""


@asynccontextmanager
async def lifespan(app: FastAPI):
    set_handlers(app, enabled_handler)
    yield


APP = FastAPI(lifespan=lifespan)
APP.add_middleware(AppAPIAuthMiddleware)


@APP.get("/me")
async def me(nc: Annotated[AsyncNextcloudApp, Depends(anc_app)]):
    await nc.preferences_ex.set_value("colour", "blue")
    await nc.appconfig_ex.set_value("seen", "1")
    try:
        await nc.ocs("GET", "/ocs/v2.php/apps/notes/nowhere")
        missing = 0
    except NextcloudException as error:
        missing = error.status_code
    return {
        "user": await nc.user,
        "users": await nc.users_list(),
        "mail": (await nc.users.get_user(await nc.user)).email,
        "colour": await nc.preferences_ex.get_value("colour"),
        "seen": await nc.appconfig_ex.get_value("seen"),
        "groups": await nc.ocs("GET", "/ocs/v1.php/cloud/groups"),
        "missing": missing,
        "nextcloud": (await nc.srv_version)["major"],
    }


if __name__ == "__main__":
    run_app(APP, log_level="warning")
