"""The blueprint of all pages; each module of pages adds its own."""

from flask import Blueprint

pages = Blueprint("pages", __name__)
