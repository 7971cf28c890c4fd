"""Names and notes by country and language: the raw material of made-up customers. Only data."""

# ruff: noqa: RUF001 (the dotless i of Turkish names is meant)

from __future__ import annotations

from typing import NamedTuple


class People(NamedTuple):
    """What people of a country are called, and which languages they want to be called in."""

    share: int  # of 100 customers
    languages: tuple[str, ...]  # one is picked; a language twice is twice as likely
    first: tuple[str, ...]
    last: tuple[str, ...]
    joined_by: str  # how this country writes a double last name


def _people(share: int, languages: str, first: str, last: str, joined_by: str) -> People:
    return People(share, tuple(languages.split()), tuple(first.split(", ")), tuple(last.split(", ")), joined_by)


PEOPLE: dict[str, People] = {
    "US": _people(
        30,
        "en en en en en en es",
        "James, Mary, Robert, Patricia, Michael, Linda, DeShawn, Ashley, Tyler, Mary-Beth, José, "
        "Guadalupe, Xiuying, D'Andre",
        "Smith, Johnson, Williams, Brown, O'Connor, Garcia, Nguyen, McAllister, Lee, Washington, van "
        "der Berg, St. James, Rodriguez",
        "-",
    ),
    "DE": _people(
        12,
        "de",
        "Anna, Jürgen, Lukas, Käthe, Sophie, Björn, Hans-Peter, Annemarie, Günter, Jörg, Ayşe, Zoë",
        "Müller, Schmidt, Schäfer, Weiß, Größner, Fischer, Becker, von Hohenlohe, Yılmaz, Lüdenscheidt, Köhler",
        "-",
    ),
    "FR": _people(
        9,
        "fr",
        "Anne-Marie, Jean-Luc, Chloé, Léa, François, Zoé, Noël, Amélie, Mamadou, Gaël, Hélène, Thibault",
        "Martin, Lefèvre, Dubois, D'Aubigné, Petit, Béranger, Le Goff, N'Diaye, Garçon, de La Fontaine",
        "-",
    ),
    "GB": _people(
        10,
        "en",
        "Oliver, Amelia, Harry, Siân, Niamh, Callum, Priya, Mohammed, Fiona, Rhys, Sarah-Jane",
        "Jones, Taylor, Patel, MacDonald, O'Neill, Hughes, Khan, Smythe, Ap Rhys, Featherstonehaugh",
        "-",
    ),
    "ES": _people(
        7,
        "es",
        "María del Carmen, José Luis, Lucía, Íñigo, Begoña, Jesús, Núria, Álvaro, Martín, Ángela",
        "García, Fernández, Núñez, de la Fuente, Ibáñez, Sánchez, Muñoz, Peña, López, Güell",
        " ",
    ),
    "BR": _people(
        9,
        "pt",
        "João, Conceição, Luís, Ana Beatriz, Antônio, Flávia, Márcio, Thaís, Caetano, Íris",
        "Silva, dos Santos, Araújo, Gonçalves, Conceição, Magalhães, Sá, Guimarães, Costa, de Oliveira",
        " ",
    ),
    "IN": _people(
        11,
        "hi hi en",
        "Aarav, Priya, Rajesh, Lakshmi, Venkatanarasimharajuvaripeta, Anjali, Arjun, अनिता, राहुल, S.",
        "Sharma, Patel, Iyer, Singh, Kumar, Krishnamurthy, Reddy, Das, गुप्ता, Chattopadhyay",
        " ",
    ),
    "TR": _people(
        5,
        "tr",
        "Ayşe, Mehmet, Çağla, Gökhan, Ömer, İpek, Şükrü, Zeynep, Işıl, Uğur",
        "Yılmaz, Çelik, Öztürk, Şahin, Kılıç, Doğan, Aydın, Güneş, İnönü",
        " ",
    ),
    "IT": _people(
        4,
        "it",
        "Giulia, Niccolò, Matteo, Mariù, Gianluca, Desirée, Pier Paolo, Noè",
        "Rossi, D'Angelo, Forlì, Esposito, Cantù, De Luca, Di Stefano, Nicolò",
        " ",
    ),
    "PL": _people(
        3,
        "pl",
        "Małgorzata, Łukasz, Żaneta, Stanisław, Zofia, Grażyna, Jędrzej, Michał",
        "Nowak, Wiśniewska, Wójcik, Kamińska, Brzęczyszczykiewicz, Dąbrowska, Źródło",
        "-",
    ),
}

BY_SHARE = tuple(country for country, people in PEOPLE.items() for _ in range(people.share))
"""Pick one: a country as often as its customers come."""

NOTES: dict[str, tuple[str, ...]] = {
    "en": (
        "Prefers calls after 5 pm.",
        "Asked for a quote on the annual plan; budget is around $2,400.",
        "Do NOT mention the 2023 invoice - still disputed!",
        'Said "maybe next quarter", sounded interested though.',
        "Moved house, new address on file.",
        "Spouse usually picks up; ask for the account holder.",
        "Left voicemail twice. 📞",
        "Wants 50% off {promo} as promised by our colleague.",
    ),
    "es": (
        "Prefiere que le llamen por la mañana.",
        "¿Cuándo llega la instalación? Preguntó dos veces.",
        "Cliente desde 2009, muy amable.",
        "No contesta; volver a intentar después de vacaciones.",
        "Quiere hablar con el señor Núñez, de facturación.",
    ),
    "de": (
        "Bitte nur vormittags anrufen.",
        "Hat nach der Kündigungsfrist gefragt; Rückruf zugesagt.",
        "Möchte das Angebot schriftlich (per Post!) erhalten.",
        "Spricht sehr leise, größere Lautstärke einstellen.",
        "Straße falsch im System: richtig ist Weißenburger Straße 12.",
    ),
    "fr": (
        "À rappeler après le 15, en congés jusque-là.",
        "Client fidèle, déjà 3 contrats.",
        "N'a pas reçu la facture d'août ; l'envoyer à nouveau.",
        "Préfère être contactée par écrit, mais accepte un appel bref.",
        "Très mécontent du délai : « inadmissible ».",
    ),
    "pt": (
        "Ligar só depois das 18h.",
        "Já pagou o boleto, não cobrar de novo.",
        "Pediu informações sobre a promoção de verão.",
        "A irmã atende às vezes; perguntar pela Conceição.",
    ),
    "hi": (
        "शाम को ही कॉल करें।",
        "पिछले महीने का बिल नहीं मिला।",
        "नए प्लान में रुचि है, कीमत पूछी।",
        "Hindi और English दोनों चलेगी.",
    ),
    "tr": (
        "Öğleden sonra aranmak istiyor.",
        "Fatura adresi değişti, güncellenecek.",
        "Yıllık üyeliği sordu; fiyatı pahalı buldu.",
        "İş yerinden aramayın lütfen.",
    ),
    "it": (
        "Richiamare lunedì mattina.",
        "È interessata, ma vuole prima parlarne con il marito.",
        "Numero di casa non più attivo.",
        "Perché la bolletta è raddoppiata? Verificare.",
    ),
    "pl": (
        "Proszę dzwonić po godzinie 16.",
        "Pytała o rabat dla stałych klientów.",
        "Zmiana nazwiska po ślubie - sprawdzić umowę.",
        "Woli kontakt mailowy, ale rozmowa też możliwa.",
    ),
}
