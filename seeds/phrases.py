"""What is said in made-up calls: sentences by speaker and tone. Only data.

Sentences of a tone have words that say so; the neutral ones have none that VADER knows, which a test checks.
``{day}`` and the like are filled in (`SLOTS`), ``{digits}`` with four digits.
"""

from __future__ import annotations

SLOTS: dict[str, tuple[str, ...]] = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"),
    "month": ("January", "March", "April", "June", "August", "October", "November"),
    "amount": ("$12.50", "$49", "$80.20", "$129", "$240", "$1,150.75", "€35", "£60"),
    "hour": ("8", "9:30", "10", "11:15", "2", "4:45", "5", "6:30"),
    "product": ("the router", "the annual plan", "the mobile contract", "the heating service", "the new app"),
    "name": ("Dana", "Omar", "Lena", "Victor", "Ines", "Tom", "Yusuf", "Karin", "Ravi", "Paula"),
}

OPENINGS = (
    "Hello, this is {name} from the customer team.",
    "You are through to {name} now.",
    "This is {name} speaking, I am calling about {product}.",
    "Hi, {name} here, I am calling you back about your letter of {month}.",
)

CLOSINGS = ("That was all from my side.", "You will get an email on {day}.", "Goodbye.")

AGENT = {
    "neutral": (
        "Let me open your file, that is {digits}.",
        "Could you tell me the last four digits of the code?",
        "I see a payment of {amount} in {month}.",
        "One moment, the page is loading.",
        "The technician comes on {day} at {hour}.",
        "That is under the second heading of the form.",
        "We sent letter {digits} in {month}.",
        "I am writing that down, {digits}.",
        "And the other line, is that in the same house?",
        "The fee for {product} is {amount} a month.",
    ),
    "positive": (
        "I am glad to hear that!",
        "Wonderful, then everything is set.",
        "Thank you, that is very kind of you.",
        "Great, I am happy that it works so well.",
    ),
    "negative": (
        "I am sorry about the trouble.",
        "I understand that this is frustrating.",
        "I apologize for the terrible wait.",
        "Sorry, that was our mistake.",
    ),
}

CUSTOMER = {
    "neutral": (
        "I have the letter of {month} here, file {digits}.",
        "The code is {digits}.",
        "We moved into the house in {month}.",
        "What does {product} cost a month?",
        "I am at home on {day} after {hour}.",
        "It says {amount} on the paper.",
        "My sister has the same contract, hers is {digits}.",
        "Where do I find that on the page?",
        "The box is in the hall, next to the door.",
        "Then we talk again on {day}.",
        "The one from {month}, or the one before?",
        "I will write it down.",
    ),
    "positive": (
        "I really love {product}, it works perfectly!",
        "That is great news, thank you so much.",
        "I am very happy with how fast you helped me.",
        "Excellent, you have been wonderful with order {digits}.",
        "My neighbour was impressed, and so am I.",
        "That is a fantastic offer for {amount}.",
        "Honestly, this is the best service I have had.",
        "Thanks, {name} was so friendly on {day}.",
    ),
    "negative": (
        "This is terrible, {product} has failed again.",
        "I am really angry about the {amount} you took.",
        "Nobody helps me, it is a horrible mess!",
        "I hate waiting for hours, I have ticket {digits} since {month}.",
        "Your invoice {digits} of {month} is wrong and I feel cheated.",
        "It is the worst company I have dealt with.",
        "I am very disappointed and I want to complain.",
        "{name} was rude to me on {day}.",
    ),
}
